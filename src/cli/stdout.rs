//! Standard output of the commands that print records, written by a thread of its own.
//!
//! A reader that stands still (a pager, a full pipe) blocks that thread alone: the command goes on to hear signals and the sidecar. One chunk
//! is under way at a time. It counts as written when it was flushed, and only then may anybody be told that its records are done.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    thread::{self, JoinHandle},
};

use anyhow::Context;
use tokio::{io::Interest, net::unix::pipe, sync::mpsc};

/// See the module.
#[derive(Debug)]
pub(super) struct Stdout {
    chunks: mpsc::Sender<Vec<u8>>,
    written: mpsc::Receiver<io::Result<()>>,
    writing: bool,
    /// Nobody waits for it: a blocked write cannot be interrupted, and ends with the process.
    _thread: JoinHandle<()>,
}

impl Stdout {
    pub(super) fn open() -> anyhow::Result<Self> {
        let (chunks, mut to_write) = mpsc::channel::<Vec<u8>>(1);
        let (done, written) = mpsc::channel(1);
        let thread = thread::Builder::new()
            .name("stdout".into())
            .spawn(move || {
                let mut stdout = io::stdout();
                while let Some(chunk) = to_write.blocking_recv() {
                    let result = stdout.write_all(&chunk).and_then(|()| stdout.flush());
                    if done.blocking_send(result).is_err() {
                        return;
                    }
                }
            })
            .context("no thread could be started for standard output")?;
        Ok(Self {
            chunks,
            written,
            writing: false,
            _thread: thread,
        })
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing
    }

    /// Begins to write a chunk. The one before must be written.
    pub(super) fn write(&mut self, chunk: Vec<u8>) {
        // A thread that is gone is noticed by `written`.
        let _ = self.chunks.try_send(chunk);
        self.writing = true;
    }

    /// Waits until the chunk under way is written; for ever if there is none.
    pub(super) async fn written(&mut self) -> io::Result<()> {
        if !self.writing {
            return std::future::pending().await;
        }
        let result = self.written.recv().await;
        self.writing = false;
        result.unwrap_or_else(|| Err(io::Error::other("the thread that writes it is gone")))
    }
}

/// Who reads standard output, if it is a pipe: a command ends with its reader, even when there is nothing to write.
#[derive(Debug)]
pub(super) struct Reader(Option<pipe::Sender>);

impl Reader {
    /// Within a runtime.
    pub(super) fn watch() -> Self {
        // It is only watched, never written to, so that it need not be non-blocking: that would be so for everybody who shares it. A file
        // cannot be watched, and is never gone.
        let copy = io::stdout().as_fd().try_clone_to_owned();
        Self(copy.and_then(pipe::Sender::from_owned_fd_unchecked).ok())
    }

    pub(super) async fn gone(&self) {
        if let Some(pipe) = &self.0
            && pipe.ready(Interest::ERROR).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
