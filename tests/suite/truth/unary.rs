//! A caller of unary requests: a few at a time, over one connection, some with a deadline.

use std::{ops::Range, time::Duration};

use outrigger::grpc::proto::{
    self, PublishResponse, publish_result, publisher_service_client::PublisherServiceClient,
};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    TICK,
    callers::Caller,
    history::{Answer, Calls},
    wire::{Failed, place},
};
use crate::{client::publish_request, sidecar::PATIENCE};

/// Requests that a caller has unanswered.
const REQUESTS: usize = 8;

type Answered = Result<Response<PublishResponse>, Status>;

/// Publishes until all is sent and answered; with deadlines of these milliseconds, or none.
pub async fn publish(mut caller: Caller, deadlines: Option<Range<u64>>) -> Calls {
    let mut requests = JoinSet::new();
    while !caller.is_over() {
        let (life, client) = caller.load.connect().await;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            while requests.len() < REQUESTS && caller.load.is_there(life) {
                caller.call += 1;
                let Some(sends) = caller.next(life) else {
                    break;
                };
                let mut request = Request::new(publish_request(caller.wire(sends.clone())));
                if let Some(Range { start, end }) = deadlines {
                    let millis = start + caller.random.below(end - start);
                    request.set_timeout(Duration::from_millis(millis));
                }
                requests.spawn(ask(client.clone(), sends, request));
            }
            tokio::select! {
                Some(done) = requests.join_next() => {
                    let (sends, answered) = done.unwrap();
                    told(&mut caller, sends, answered);
                }
                _ = tick.tick() => {}
            }
            if requests.is_empty() && (caller.is_over() || !caller.load.is_there(life)) {
                break;
            }
        }
    }
    caller.calls
}

async fn ask(
    mut client: PublisherServiceClient<Channel>,
    sends: Range<u32>,
    request: Request<proto::PublishRequest>,
) -> (Range<u32>, Answered) {
    let answered = tokio::time::timeout(PATIENCE, client.publish(request)).await;
    (sends, answered.expect("an answer in time"))
}

fn told(caller: &mut Caller, sends: Range<u32>, answered: Answered) {
    let results = match answered {
        Ok(answer) => answer.into_inner().results,
        Err(status) => {
            for send in sends {
                caller.failed(send, Failed::of_status(&status));
            }
            return;
        }
    };
    assert_eq!(results.len(), sends.len(), "a result for each record");
    for (send, result) in sends.zip(results) {
        match result.result.expect("a result") {
            publish_result::Result::Published(published) => {
                let place = place(published.partition, published.offset.unwrap_or(-1));
                let answer = match published.duplicate {
                    false => Answer::Written(place),
                    true => Answer::Duplicate(place),
                };
                caller.answered(send, answer);
            }
            publish_result::Result::Error(error) => caller.failed(send, Failed::of(&error)),
            other => panic!("{other:?}"),
        }
    }
}
