//! The answer side of a streaming call, and the task that serves it.
//!
//! The task runs by itself, in the supervised set of the server: a caller that reads nothing does not stop it, so that it can cut the stream.
//! Its result ends the call, whether or not the channel of answers had room; a task that vanished ends it as an internal error.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::Stream;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::status::status;
use crate::{
    failure::{Failure, Reason},
    metrics,
};

/// Bounds the open streams of the process, whatever connection they are on, and supervises their tasks.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    free: Arc<Semaphore>,
    most: usize,
    tasks: TaskTracker,
}

impl Streams {
    pub(super) fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            most,
            tasks: TaskTracker::new(),
        }
    }

    /// The place of one stream among them, or of a call that waits as a stream does.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.free).try_acquire_owned().map_err(|_| {
            metrics::connections().refused(Reason::TooManyStreams);
            let failure = Failure::new(
                Reason::TooManyStreams,
                format!(
                    "{} streams are open already (listen.max_streams)",
                    self.most
                ),
            );
            status(&failure.with_retry_after(super::RETRY_AFTER))
        })
    }

    /// Serves a call with the task that `serve` makes of the channel of answers, or refuses it when too many are open.
    pub(super) fn serve<M, F>(
        &self,
        capacity: usize,
        serve: impl FnOnce(mpsc::Sender<M>) -> F,
    ) -> Result<Answers<M>, Status>
    where
        M: Send + 'static,
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let place = self.place()?;
        let (sender, messages) = mpsc::channel(capacity);
        let (ended, end) = oneshot::channel();
        let task = serve(sender);
        self.tasks.spawn(async move {
            let end = task.await;
            if let Err(failure) = &end {
                metrics::connections().stream_failed(failure.reason);
                tracing::debug!(
                    reason = failure.reason.as_str(),
                    "a stream ended: {failure}"
                );
            }
            // The caller may be gone.
            let _ = ended.send(end);
        });
        Ok(Answers {
            messages,
            end: Some(end),
            _place: place,
        })
    }
}

/// The answers of one call.
pub(super) struct Answers<M> {
    messages: mpsc::Receiver<M>,
    /// Taken when it was told.
    end: Option<oneshot::Receiver<Result<(), Failure>>>,
    _place: OwnedSemaphorePermit,
}

impl<M> Stream for Answers<M> {
    type Item = Result<M, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(message) = ready!(this.messages.poll_recv(context)) {
            return Poll::Ready(Some(Ok(message)));
        }
        let Some(end) = &mut this.end else {
            return Poll::Ready(None);
        };
        let ended = ready!(Pin::new(end).poll(context));
        this.end = None;
        Poll::Ready(match ended {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(Err(status(&failure))),
            Err(_) => Some(Err(status(&Failure::new(
                Reason::Internal,
                "internal error",
            )))),
        })
    }
}
