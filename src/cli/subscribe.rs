//! `outrigger subscribe`: records to standard output, through the sidecar.
//!
//! Here is the command line; `session` is the stream. A record is acknowledged after it was written and flushed, never before: what is lost
//! in a broken pipe is delivered again.

mod session;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::{Args, ValueEnum};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::session::{Outcome, Session};
use super::{
    EXIT_INTERRUPTED,
    client::{Sidecar, refusal, runtime},
    fail,
    format::Format,
};
use crate::grpc::proto::{
    self, SubscribeRequest, start_position::Position, subscribe_request::Message as Request,
    subscriber_service_client::SubscriberServiceClient,
};

/// The largest message that is taken; the window's bytes keep it from being filled.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

const HELP: &str = "\
A record is acknowledged when it was written to standard output; one that was not is delivered again.

Exit codes: 0 --count records are printed and acknowledged, or, without --count, SIGINT or SIGTERM came; also when nobody reads the
output any more; 1 the sidecar refused or ended the stream, --timeout was over, or an acknowledgement was not recorded;
2 the command line is wrong; 130 SIGINT or SIGTERM before --count was reached.";

/// See the module.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Subscribe {
    /// The topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// The consumer group; members of a group share the records, and a group goes on where it left off. Default: a group of its own,
    /// outrigger-cli- and random digits, which sees everything from --from on.
    #[arg(long, short)]
    group: Option<String>,
    /// Stop after so many records; never more are taken from the group. Default: follow the topics.
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Where a group that has committed nothing begins: earliest, latest, or a time such as 2026-01-31T12:00:00Z, for the first records from
    /// then on. All members of a group ask for the same.
    #[arg(long, default_value = "earliest", value_parser = From::parse)]
    from: From,
    /// In which order records come: each partition's, one of a key at a time, or any. All members of a group ask for the same.
    #[arg(long, value_enum, default_value = "partition")]
    ordering: Order,
    /// What to print of a record: %t topic, %p partition, %o offset, %k key, %s value, %T timestamp (ms; -1: none), %h headers as
    /// NAME=VALUE with commas, %n newline, %%; also \n \t \0 \\. A null key or value prints nothing.
    #[arg(long, short, default_value = r"%s\n", value_parser = Format::parse, conflicts_with = "json")]
    format: Format,
    /// Print each record as a JSON object, as `outrigger publish --json` takes it.
    #[arg(long)]
    json: bool,
    /// Records that may be delivered and not yet acknowledged.
    #[arg(long, default_value_t = 1000, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    window: u64,
    /// Fail when --count is not reached in this time, such as 10s or 2m.
    #[arg(long, value_name = "DURATION", requires = "count", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    sidecar: Sidecar,
}

#[derive(Clone, Copy, Debug)]
enum From {
    Earliest,
    Latest,
    Time(SystemTime),
}

impl From {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => humantime::parse_rfc3339_weak(text)
                .map(Self::Time)
                .map_err(|_| {
                    "it is earliest, latest, or a time such as 2026-01-31T12:00:00Z".to_owned()
                }),
        }
    }

    fn position(self) -> Position {
        match self {
            Self::Earliest => Position::Kind(proto::StartKind::Earliest.into()),
            Self::Latest => Position::Kind(proto::StartKind::Latest.into()),
            Self::Time(time) => Position::Time(time.into()),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Order {
    Key,
    Partition,
    Unordered,
}

impl std::convert::From<Order> for proto::Ordering {
    fn from(order: Order) -> Self {
        match order {
            Order::Key => Self::Key,
            Order::Partition => Self::Partition,
            Order::Unordered => Self::Unordered,
        }
    }
}

impl Subscribe {
    pub(super) fn run(self) -> ExitCode {
        match runtime().and_then(|runtime| runtime.block_on(self.subscribe())) {
            Ok(Outcome::Done) => ExitCode::SUCCESS,
            Ok(Outcome::Interrupted) => EXIT_INTERRUPTED.into(),
            Err(error) => fail(&format!("{error:#}")),
        }
    }

    async fn subscribe(&self) -> anyhow::Result<Outcome> {
        let mut client = SubscriberServiceClient::new(self.sidecar.connect().await?)
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (requests, receiver) = mpsc::channel(4);
        let init = SubscribeRequest {
            message: Some(Request::Init(self.init())),
        };
        requests.send(init).await?;
        let responses = client.subscribe(ReceiverStream::new(receiver)).await;
        let responses = responses.map_err(|status| refusal(&status))?.into_inner();
        Session::new(self, requests, responses)?.run().await
    }

    fn init(&self) -> proto::Init {
        proto::Init {
            group: self.group.clone().unwrap_or_else(new_group),
            topics: self.topics.clone(),
            ordering: proto::Ordering::from(self.ordering).into(),
            window: Some(self.window_for(self.count)),
            confirm: proto::Confirm::Recorded.into(),
            start: Some(proto::StartPosition {
                position: Some(self.from.position()),
            }),
            client_id: "outrigger-subscribe".to_owned(),
            max_message_bytes: MAX_MESSAGE_BYTES as u64,
            ..Default::default()
        }
    }

    /// Never more than is still wanted, so that nothing is delivered in vain.
    fn window_for(&self, wanted: Option<u64>) -> proto::Window {
        proto::Window {
            max_records: Some(wanted.map_or(self.window, |wanted| wanted.min(self.window))),
            max_bytes: None,
        }
    }
}

fn new_group() -> String {
    // The keys of a RandomState are the standard library's only randomness.
    let random = RandomState::new().build_hasher().finish();
    format!("outrigger-cli-{random:016x}")
}
