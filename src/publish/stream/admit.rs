//! Room for what a stream has read: for as much at once as there is room for, and the wait of the first that finds none.

use std::pin::Pin;

use super::{
    queue::{Charge, Queued},
    session::{AT_ONCE, Session},
};
use crate::publish::{Claim, Claimant, Publisher, admission::Admitted};

/// Ends without room when the batch has waited for too long.
pub(super) type Admitting<'a> = Pin<Box<dyn Future<Output = Option<Admitted>> + Send + 'a>>;

impl<'a> Session<'a> {
    /// What waits first, with its room: what there is room for now, to be handed over in one turn.
    pub(super) fn admit(&mut self) -> Vec<(Queued, Admitted)> {
        let waiting = self.queue.iter_mut().take(self.at_once);
        let claims = waiting.map(|next| claim(self.publisher, self.claimant, next));
        let claims: Vec<Claim> = claims.collect();
        let asked = claims.len();
        let admitted = self.publisher.0.admission.take(claims);
        // As long as there is no room for all of them, what is asked for in vain is little.
        self.at_once = match admitted.len() == asked {
            true => AT_ONCE.min(self.at_once * 2),
            false => 1,
        };
        self.queue.drain(..admitted.len()).zip(admitted).collect()
    }

    /// Charges what has been read and is not going to be admitted in this turn.
    pub(super) fn charge(&mut self) {
        let unlooked = std::mem::take(&mut self.unlooked);
        for queued in self.queue.iter_mut().rev().take(unlooked) {
            let bytes = queued.usage.bytes;
            let charge = || Charge::new(&self.publisher.0.intake, bytes);
            queued.charge.get_or_insert_with(charge);
        }
    }

    /// The wait for the room of a batch, in whose turn it is.
    pub(super) fn wait(&self, mut next: Queued) -> (Admitting<'a>, Queued) {
        let until = next.until.into();
        let claim = claim(self.publisher, self.claimant, &mut next);
        let asked = self.publisher.0.admission.ask(claim);
        let admitting = Box::pin(async move {
            match asked {
                Ok(admitted) => Some(admitted),
                Err(waits) => tokio::time::timeout_at(until, waits).await.ok(),
            }
        });
        (admitting, next)
    }
}

/// What a batch asks for, beside what is known by its message ids.
fn claim(publisher: &Publisher, claimant: Claimant, next: &mut Queued) -> Claim {
    let (asked, room) = publisher.0.ids.look(&next.records, next.usage);
    next.asked = asked;
    publisher.claim(claimant, &next.records, room)
}

pub(super) async fn admitted(admitting: &mut Option<(Admitting<'_>, Queued)>) -> Option<Admitted> {
    match admitting {
        Some((future, _)) => future.await,
        None => std::future::pending().await,
    }
}
