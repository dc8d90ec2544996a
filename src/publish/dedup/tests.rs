//! The table of message ids against a simple model, and its bounds one by one.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    window: Duration::from_secs(10),
    ids: 100,
    waiting: 100,
};

const SENT: Answer = Answer::Published {
    partition: 1,
    offset: Some(2),
    timestamp: Some(3),
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn print(id: u128) -> Print {
    Print { id, content: 0 }
}

fn other(id: u128) -> Print {
    Print { id, content: 1 }
}

/// Claims an id for a record that has room.
fn claim(dedup: &mut Dedup<u32>, print: Print, now: u64) -> Claim {
    dedup.claim(print, true, 0, seconds(now))
}

/// A table in which these ids are answered at these times.
fn answered(bounds: Bounds, ids: &[(u128, u64)]) -> Dedup<u32> {
    let mut dedup = Dedup::new(bounds);
    for (id, at) in ids {
        assert_eq!(claim(&mut dedup, print(*id), *at), Claim::First);
        assert!(dedup.settle(*id, Some(SENT), seconds(*at)).is_empty());
    }
    dedup
}

#[test]
fn a_retry_is_given_the_first_answer_until_the_window_is_over() {
    let mut dedup = answered(BOUNDS, &[(1, 5)]);
    assert_eq!(claim(&mut dedup, print(1), 14), Claim::Answered(SENT));
    assert!(dedup.knows(print(1), seconds(14)));
    assert!(!dedup.knows(print(1), seconds(15)), "ten seconds after");
    assert_eq!(claim(&mut dedup, print(1), 15), Claim::First);
}

#[test]
fn the_window_begins_with_the_answer() {
    let mut dedup = Dedup::<u32>::new(BOUNDS);
    claim(&mut dedup, print(1), 0);
    assert_eq!(
        claim(&mut dedup, print(1), 1000),
        Claim::Joined,
        "in flight, however long"
    );
    dedup.settle(1, Some(SENT), seconds(1000));
    assert_eq!(claim(&mut dedup, print(1), 1009), Claim::Answered(SENT));
}

#[test]
fn those_that_join_are_given_back_once_in_their_order() {
    let mut dedup = Dedup::new(BOUNDS);
    for who in 0..4 {
        let claim = dedup.claim(print(1), true, who, seconds(0));
        assert_eq!(claim == Claim::First, who == 0);
    }
    assert_eq!(dedup.settle(1, Some(SENT), seconds(0)), [1, 2, 3]);
    assert_eq!(dedup.waiting, 0);
}

#[test]
fn an_id_whose_record_is_not_in_kafka_is_free() {
    let mut dedup = Dedup::<u32>::new(BOUNDS);
    claim(&mut dedup, print(1), 0);
    claim(&mut dedup, print(1), 0);
    assert_eq!(dedup.settle(1, None, seconds(0)).len(), 1);
    assert_eq!(dedup.len(seconds(0)), 0);
    assert_eq!(claim(&mut dedup, print(1), 0), Claim::First);
}

#[test]
fn an_unknown_end_is_repeated_and_frees_nothing() {
    let mut dedup = Dedup::<u32>::new(BOUNDS);
    claim(&mut dedup, print(1), 0);
    let unknown = Answer::Unknown(Reason::DeliveryTimeout);
    dedup.settle(1, Some(unknown), seconds(0));
    assert_eq!(claim(&mut dedup, print(1), 9), Claim::Answered(unknown));
}

#[test]
fn other_content_is_refused_in_flight_and_answered() {
    let mut dedup = Dedup::<u32>::new(BOUNDS);
    claim(&mut dedup, print(1), 0);
    assert_eq!(claim(&mut dedup, other(1), 0), Claim::Reused);
    dedup.settle(1, Some(SENT), seconds(0));
    assert_eq!(claim(&mut dedup, other(1), 9), Claim::Reused);
    assert_eq!(claim(&mut dedup, other(1), 10), Claim::First);
}

#[test]
fn beyond_the_bound_the_oldest_answers_go_and_never_what_is_in_flight() {
    let bounds = Bounds { ids: 3, ..BOUNDS };
    let mut dedup = answered(bounds, &[(1, 0), (2, 1)]);
    claim(&mut dedup, print(3), 2);
    assert!(dedup.knows(print(1), seconds(2)));
    claim(&mut dedup, print(4), 2);
    let knows = |dedup: &mut Dedup<u32>| [1, 2, 3, 4].map(|id| dedup.knows(print(id), seconds(2)));
    assert_eq!(knows(&mut dedup), [false, true, true, true]);
    claim(&mut dedup, print(5), 2);
    claim(&mut dedup, print(6), 2);
    assert_eq!(knows(&mut dedup), [false, false, true, true]);
    assert_eq!(dedup.len(seconds(2)), 4, "all of them are in flight");
    dedup.settle(3, Some(SENT), seconds(2));
    assert_eq!(knows(&mut dedup), [false, false, false, true]);
}

#[test]
fn no_more_wait_than_may() {
    let bounds = Bounds {
        waiting: 1,
        ..BOUNDS
    };
    let mut dedup = Dedup::<u32>::new(bounds);
    claim(&mut dedup, print(1), 0);
    claim(&mut dedup, print(2), 0);
    assert_eq!(claim(&mut dedup, print(1), 0), Claim::Joined);
    assert_eq!(claim(&mut dedup, print(2), 0), Claim::Crowded);
    dedup.settle(1, Some(SENT), seconds(0));
    assert_eq!(claim(&mut dedup, print(2), 0), Claim::Joined);
}

#[test]
fn a_record_without_room_is_not_the_first() {
    let mut dedup = answered(BOUNDS, &[(1, 0)]);
    let without_room = |dedup: &mut Dedup<u32>, now| dedup.claim(print(1), false, 0, seconds(now));
    assert_eq!(without_room(&mut dedup, 9), Claim::Answered(SENT));
    assert_eq!(without_room(&mut dedup, 10), Claim::Gone);
    assert_eq!(dedup.len(seconds(10)), 0);
}

/// The same in the simplest way: all that ever happened, looked through from the start.
#[derive(Default)]
struct Model {
    ids: Vec<Known>,
}

struct Known {
    print: Print,
    waiting: Vec<u32>,
    answer: Option<(Duration, Answer)>,
}

impl Model {
    fn forget(&mut self, bounds: Bounds, now: Duration) {
        self.ids
            .retain(|known| known.answer.is_none_or(|(at, _)| now < at + bounds.window));
        while self.ids.len() > bounds.ids {
            // Answers are put at the end when they are given, so the first of them is the oldest.
            match self.ids.iter().position(|known| known.answer.is_some()) {
                Some(oldest) => drop(self.ids.remove(oldest)),
                None => return,
            }
        }
    }

    fn claim(
        &mut self,
        bounds: Bounds,
        print: Print,
        room: bool,
        who: u32,
        now: Duration,
    ) -> Claim {
        self.forget(bounds, now);
        let waiting: usize = self.ids.iter().map(|known| known.waiting.len()).sum();
        let known = self.ids.iter_mut().find(|known| known.print.id == print.id);
        let Some(known) = known else {
            if !room {
                return Claim::Gone;
            }
            self.ids.push(Known {
                print,
                waiting: Vec::new(),
                answer: None,
            });
            self.forget(bounds, now);
            return Claim::First;
        };
        match known.answer {
            _ if known.print != print => Claim::Reused,
            Some((_, answer)) => Claim::Answered(answer),
            None if waiting >= bounds.waiting => Claim::Crowded,
            None => {
                known.waiting.push(who);
                Claim::Joined
            }
        }
    }

    fn settle(
        &mut self,
        bounds: Bounds,
        id: u128,
        answer: Option<Answer>,
        now: Duration,
    ) -> Vec<u32> {
        let at = self.ids.iter().position(|known| known.print.id == id);
        let mut known = self.ids.remove(at.expect("it is in flight"));
        let waiting = std::mem::take(&mut known.waiting);
        if let Some(answer) = answer {
            known.answer = Some((now, answer));
            self.ids.push(known);
            self.forget(bounds, now);
        }
        waiting
    }

    /// The ids in flight, in the order of their claims.
    fn in_flight(&self) -> Vec<u128> {
        let open = self.ids.iter().filter(|known| known.answer.is_none());
        open.map(|known| known.print.id).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Look(u128),
    Claim(Print, bool),
    /// Of those in flight, counted round and round; and how it ends.
    Settle(usize, Option<Answer>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let answer = prop_oneof![
        3 => (0..9_i64).prop_map(|offset| Some(Answer::Published {
            partition: 0,
            offset: Some(offset),
            timestamp: None,
        })),
        1 => Just(Some(Answer::Unknown(Reason::DeliveryTimeout))),
        1 => Just(None),
    ];
    // Few ids, so that they meet.
    let print = (0..8_u128, 0..6_u128).prop_map(|(id, content)| Print {
        id,
        content: content / 5,
    });
    let step = prop_oneof![
        2 => (0..4_u64).prop_map(Step::Pass),
        1 => (0..8_u128).prop_map(Step::Look),
        6 => (print, proptest::bool::weighted(0.8)).prop_map(|(print, room)| Step::Claim(print, room)),
        4 => (any::<usize>(), answer).prop_map(|(which, answer)| Step::Settle(which, answer)),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn it_does_what_the_simplest_table_does(
        steps in steps(),
        window in 1..8_u64,
        ids in 1..8_usize,
        waiting in 0..5_usize,
    ) {
        let bounds = Bounds { window: seconds(window), ids, waiting };
        let (mut dedup, mut model) = (Dedup::new(bounds), Model::default());
        let mut now = Duration::ZERO;
        // Each is told once: by the claim, or by a settlement.
        let (mut who, mut joined, mut told) = (0, 0, 0);
        for step in steps {
            match step {
                Step::Pass(time) => now += seconds(time),
                Step::Look(id) => {
                    model.forget(bounds, now);
                    let known = model.ids.iter().any(|known| known.print.id == id);
                    prop_assert_eq!(dedup.knows(print(id), now), known);
                }
                Step::Claim(print, room) => {
                    who += 1;
                    let claim = dedup.claim(print, room, who, now);
                    prop_assert_eq!(claim, model.claim(bounds, print, room, who, now));
                    joined += usize::from(claim == Claim::Joined);
                }
                Step::Settle(which, answer) => {
                    let open = model.in_flight();
                    if open.is_empty() {
                        continue;
                    }
                    let id = open[which % open.len()];
                    let back = dedup.settle(id, answer, now);
                    told += back.len();
                    prop_assert_eq!(back, model.settle(bounds, id, answer, now));
                }
            }
            let open = model.in_flight().len();
            model.forget(bounds, now);
            prop_assert_eq!(dedup.len(now), model.ids.len());
            prop_assert!(dedup.ids.len() <= ids.max(open), "the bound, or what is in flight");
            prop_assert_eq!(dedup.answered.len(), dedup.ids.len() - open, "the order of answers grows with them");
            prop_assert!(dedup.waiting <= waiting);
        }
        for id in model.in_flight() {
            told += dedup.settle(id, None, now).len();
        }
        prop_assert_eq!(told, joined);
    }
}
