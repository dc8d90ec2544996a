//! `outrigger drain`: the first phase of a stop, for a preStop hook.

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::{
    client::{Sidecar, refusal, runtime},
    fail, say,
};
use crate::grpc::proto::{self, admin_service_client::AdminServiceClient};

/// See the module.
#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    sidecar: Sidecar,
    /// The deadline of the whole drain, at most the sidecar's own (drain.deadline).
    #[arg(long, value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
}

impl Drain {
    pub(super) fn run(self) -> ExitCode {
        let drained = runtime().and_then(|runtime| runtime.block_on(self.drain()));
        match drained {
            Err(error) => fail(&format!("{error:#}")),
            Ok(answer) if answer.complete => {
                say(&"drained: nothing delivered is unsettled");
                ExitCode::SUCCESS
            }
            Ok(answer) => fail(&format!(
                "the deadline came first: {} delivered records are not settled",
                answer.unsettled
            )),
        }
    }

    async fn drain(&self) -> anyhow::Result<proto::DrainResponse> {
        let mut client = AdminServiceClient::new(self.sidecar.beside().connect().await?);
        let request = proto::DrainRequest {
            deadline: self.deadline.and_then(|deadline| deadline.try_into().ok()),
        };
        let answer = client
            .drain(request)
            .await
            .map_err(|status| refusal(&status))?;
        Ok(answer.into_inner())
    }
}
