//! A stream's own end of its session: what comes from there, and how it is spoken to.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    thread::Thread,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{Command, Outgoing, SettleItem, StreamId, Token};
use crate::{failure::Failure, record::Usage};

/// A stream's own end of its session.
#[derive(Debug)]
pub struct Stream {
    pub(super) id: StreamId,
    pub(super) handle: Handle,
    pub(super) incoming: mpsc::Receiver<Outgoing>,
    /// Taken when it was told.
    pub(super) end: Option<oneshot::Receiver<Option<Failure>>>,
    /// What may be delivered before anything is settled.
    pub granted: Usage,
    /// How long a delivery may stay unsettled.
    pub lease: Duration,
    /// Whether records may be sent to the dead letters.
    pub has_dead_letters: bool,
}

/// Speaks to a session for one stream.
#[derive(Clone, Debug)]
pub struct StreamHandle {
    id: StreamId,
    handle: Handle,
}

impl Stream {
    /// To speak to the session while this end is being read elsewhere.
    pub fn handle(&self) -> StreamHandle {
        StreamHandle {
            id: self.id,
            handle: self.handle.clone(),
        }
    }
}

impl tokio_stream::Stream for Stream {
    type Item = Outgoing;

    /// The next message, and `End` at last; `None` without an `End` when the session is gone.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let this = self.get_mut();
        if let Some(message) = ready!(this.incoming.poll_recv(context)) {
            // There is room in the channel again.
            this.handle.wake.unpark();
            return Poll::Ready(Some(message));
        }
        let Some(end) = &mut this.end else {
            return Poll::Ready(None);
        };
        let ended = ready!(Pin::new(end).poll(context));
        this.end = None;
        Poll::Ready(ended.ok().map(Outgoing::End))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The session finds the channel closed and takes back what the stream held.
        self.incoming.close();
        self.handle.wake.unpark();
    }
}

impl StreamHandle {
    /// Changes the window.
    pub async fn window(&self, window: Usage) -> bool {
        let command = Command::Window {
            stream: self.id,
            window,
        };
        self.handle.send(command).await
    }

    /// Settles deliveries; the answer comes as [`Outgoing::Settled`].
    pub async fn settle(&self, request_id: u64, items: Vec<SettleItem>) -> bool {
        let command = Command::Settle {
            stream: self.id,
            request_id,
            items,
        };
        self.handle.send(command).await
    }

    /// Prolongs the leases of deliveries; the answer comes as [`Outgoing::Extended`].
    pub async fn extend(
        &self,
        request_id: u64,
        tokens: Vec<Option<Token>>,
        lease: Option<Duration>,
    ) -> bool {
        let command = Command::Extend {
            stream: self.id,
            request_id,
            tokens,
            lease,
        };
        self.handle.send(command).await
    }

    /// Ends this stream in order: what it holds was not tried, and is no suspect.
    pub async fn leave(&self) -> bool {
        self.handle.send(Command::Leave { stream: self.id }).await
    }

    /// Stops deliveries to this stream; it ends when everything it holds is settled.
    pub async fn drain(&self) -> bool {
        self.handle.send(Command::Drain { stream: self.id }).await
    }
}

/// Speaks to a session: its commands, and the thread to wake after one.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) wake: Thread,
}

impl Handle {
    pub(super) async fn send(&self, command: Command) -> bool {
        let sent = self.commands.send(command).await.is_ok();
        self.wake.unpark();
        sent
    }
}
