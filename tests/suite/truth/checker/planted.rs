//! The checker is checked: what is right passes, and each thing that is made wrong in it is found by the rule that names it, and by no other.

use super::{
    super::history::{Answer, Place, Sent, Stored},
    Rule,
    answered::{Answered, PARTITIONS, PLAIN, STOPS, STREAM, UNARY},
    judge,
};

const SEEDS: u64 = 20;

#[test]
fn what_is_right_passes() {
    for seed in 0..SEEDS {
        let right = Answered::right(seed);
        let violations = judge(&right.topic, &right.callers);
        assert!(violations.is_empty(), "seed {seed}: {}", violations[0]);
    }
}

/// Makes `plant` do its work in many histories; it says whether it found a place for it.
#[track_caller]
fn planted(rule: Rule, plant: impl Fn(&mut Answered) -> Option<()>) {
    let mut found = 0;
    for seed in 0..SEEDS {
        let mut wrong = Answered::right(seed);
        if plant(&mut wrong).is_none() {
            continue;
        }
        found += 1;
        let violations = judge(&wrong.topic, &wrong.callers);
        assert!(!violations.is_empty(), "seed {seed}: it is not found");
        for violation in violations {
            assert_eq!(violation.rule, rule, "seed {seed}: {violation}");
        }
    }
    assert!(found >= 3, "{found} histories have a place for it");
}

fn is_written(answer: Answer) -> bool {
    matches!(answer, Answer::Written(_))
}

#[test]
fn an_acknowledged_record_that_a_partition_has_lost_is_found() {
    planted(Rule::Lost, |wrong| {
        let partition = wrong.random.below(PARTITIONS) as usize;
        let last = wrong.topic[partition].pop()?;
        let sent = *wrong.sent(last.caller.into(), last.send);
        let is_told = is_written(sent.answer) || wrong.is_repeated(last.caller.into(), sent);
        is_told.then_some(())
    });
}

#[test]
fn a_record_that_is_answered_as_written_and_was_never_sent_is_found() {
    planted(Rule::Lost, |wrong| {
        let caller = wrong.any_caller();
        let send = wrong.one(caller, |_, _, sent| sent.answer == Answer::NotWritten)?;
        wrong.sent(caller, send).answer = Answer::Written(Place {
            partition: 0,
            offset: Some(0),
        });
        Some(())
    });
}

#[test]
fn a_duplicate_of_a_record_that_is_not_there_is_found() {
    planted(Rule::Lost, |wrong| {
        // Nobody knew what had become of the first.
        let send = wrong.one(UNARY, |wrong, send, sent| {
            let mut before = wrong.callers[UNARY].sent[..send as usize].iter();
            sent.answer == Answer::Possibly
                && wrong.known.get(&(UNARY, sent.record, sent.life)) == Some(&None)
                && before.any(|one| (one.record, one.life) == (sent.record, sent.life))
        })?;
        let place = Place {
            partition: 0,
            offset: None,
        };
        wrong.sent(UNARY, send).answer = Answer::Duplicate(place);
        Some(())
    });
}

#[test]
fn an_offset_that_is_another_records_is_found() {
    planted(Rule::Misplaced, |wrong| {
        let caller = wrong.any_caller();
        let send = wrong.one(caller, |_, _, sent| {
            matches!(
                sent.answer,
                Answer::Written(Place {
                    offset: Some(_),
                    ..
                })
            )
        })?;
        let Answer::Written(place) = &mut wrong.sent(caller, send).answer else {
            return None;
        };
        // The last one's is beyond the end.
        place.offset = place.offset.map(|offset| offset + 1);
        Some(())
    });
}

#[test]
fn a_partition_that_is_not_the_records_is_found_even_without_an_offset() {
    planted(Rule::Misplaced, |wrong| {
        let caller = wrong.any_caller();
        let send = wrong.one(caller, |_, _, sent| {
            matches!(sent.answer, Answer::Written(Place { offset: None, .. }))
        })?;
        let Answer::Written(place) = &mut wrong.sent(caller, send).answer else {
            return None;
        };
        place.partition = (place.partition + 1) % PARTITIONS as u16;
        Some(())
    });
}

#[test]
fn a_duplicate_that_is_given_another_records_offset_is_found() {
    planted(Rule::Misplaced, |wrong| {
        let caller = [STREAM, UNARY][wrong.random.below(2) as usize];
        let send = wrong.one(caller, |_, _, sent| {
            matches!(sent.answer, Answer::Duplicate(_))
        })?;
        let Answer::Duplicate(place) = &mut wrong.sent(caller, send).answer else {
            return None;
        };
        place.offset = place
            .offset
            .map(|offset| offset.checked_sub(1).unwrap_or(1));
        Some(())
    });
}

#[test]
fn a_record_that_was_answered_as_not_written_and_is_there_is_found() {
    planted(Rule::WrittenAfterAll, |wrong| {
        let caller = wrong.any_caller();
        let send = wrong.one(caller, |wrong, send, sent| {
            !matches!(sent.answer, Answer::Duplicate(_)) && wrong.place(caller, send).is_some()
        })?;
        wrong.sent(caller, send).answer = Answer::NotWritten;
        Some(())
    });
}

#[test]
fn a_record_that_is_there_twice_is_found() {
    planted(Rule::Doubled, |wrong| {
        let partition = wrong.random.below(PARTITIONS) as usize;
        let count = wrong.topic[partition].len() as u64;
        let again = wrong.topic[partition][wrong.random.below(count) as usize];
        wrong.topic[partition].push(again);
        Some(())
    });
}

#[test]
fn a_retry_that_is_written_beside_the_first_is_found() {
    planted(Rule::IdDoubled, |wrong| {
        let send = wrong.one(UNARY, |wrong, send, sent| {
            let known = wrong.known.get(&(UNARY, sent.record, sent.life));
            let first = known.copied().flatten();
            first.is_some()
                && wrong.place(UNARY, send).is_none()
                && matches!(sent.answer, Answer::Duplicate(_))
        })?;
        let sent = *wrong.sent(UNARY, send);
        wrong.sent(UNARY, send).answer = Answer::Unknown;
        wrong.store(usize::from(sent.key) % PARTITIONS as usize, UNARY, send);
        Some(())
    });
}

#[test]
fn a_record_without_an_id_that_is_called_a_duplicate_is_found() {
    planted(Rule::FalseDuplicate, |wrong| {
        let caller = [PLAIN, STOPS][wrong.random.below(2) as usize];
        let send = wrong.one(caller, |_, _, sent| is_written(sent.answer))?;
        let Answer::Written(place) = wrong.sent(caller, send).answer else {
            return None;
        };
        wrong.sent(caller, send).answer = Answer::Duplicate(place);
        Some(())
    });
}

#[test]
fn a_first_record_that_is_called_a_duplicate_and_was_not_sent_is_found() {
    planted(Rule::FalseDuplicate, |wrong| {
        let caller = [STREAM, UNARY][wrong.random.below(2) as usize];
        let send = wrong.one(caller, |wrong, send, sent| {
            let mut before = wrong.callers[caller].sent[..send as usize].iter();
            sent.answer == Answer::NotWritten
                && !before.any(|one| (one.record, one.life) == (sent.record, sent.life))
        })?;
        let place = Place {
            partition: 0,
            offset: Some(0),
        };
        wrong.sent(caller, send).answer = Answer::Duplicate(place);
        Some(())
    });
}

#[test]
fn two_records_of_a_stream_that_change_places_are_found() {
    planted(Rule::OutOfOrder, |wrong| {
        let partition = wrong.random.below(PARTITIONS) as usize;
        let records = &wrong.topic[partition];
        let call = |one: &Stored| {
            (
                one.caller,
                wrong.callers[usize::from(one.caller)].sent[one.send as usize].call,
            )
        };
        let pairs = records.windows(2).enumerate();
        let mut pairs = pairs.filter(|(_, pair)| call(&pair[0]) == call(&pair[1]));
        let (at, pair) = pairs.next()?;
        let (one, next) = (pair[0], pair[1]);
        // The answers stay true.
        for (stored, from, to) in [(one, at, at + 1), (next, at + 1, at)] {
            for sent in &mut wrong.callers[usize::from(stored.caller)].sent {
                if let Answer::Written(place) | Answer::Duplicate(place) = &mut sent.answer
                    && *place
                        == (Place {
                            partition: partition as u16,
                            offset: Some(from as u32),
                        })
                    && sent.record == stored.record
                {
                    place.offset = Some(to as u32);
                }
            }
        }
        wrong.topic[partition].swap(at, at + 1);
        Some(())
    });
}

#[test]
fn a_record_that_is_sent_after_its_stream_has_stopped_is_found() {
    planted(Rule::SentAfterStop, |wrong| {
        let send = wrong.one(STOPS, |wrong, send, sent| {
            let before = wrong.callers[STOPS].sent[..send as usize].last();
            let is_next =
                |before: &Sent| (before.call, before.answer) == (sent.call, Answer::NotSent);
            sent.answer == Answer::NotSent && before.is_some_and(is_next)
        })?;
        let sent = *wrong.sent(STOPS, send);
        wrong.sent(STOPS, send).answer = Answer::Possibly;
        wrong.store(usize::from(sent.key) % PARTITIONS as usize, STOPS, send);
        Some(())
    });
}

#[test]
fn a_key_in_two_partitions_is_found() {
    planted(Rule::KeyMoved, |wrong| {
        let partition = wrong.random.below(PARTITIONS) as usize;
        let at = wrong.random.below(wrong.topic[partition].len() as u64) as usize;
        let stored = &mut wrong.topic[partition][at];
        stored.key = stored.key.checked_sub(1).unwrap_or(1);
        let (caller, send, key) = (stored.caller, stored.send, stored.key);
        wrong.sent(caller.into(), send).key = key;
        Some(())
    });
}

#[test]
fn a_record_with_the_content_of_another_is_found() {
    planted(Rule::Altered, |wrong| {
        let partition = wrong.random.below(PARTITIONS) as usize;
        let at = wrong.random.below(wrong.topic[partition].len() as u64) as usize;
        match wrong.random.one_in(2) {
            true => wrong.topic[partition][at].record += 1,
            false => wrong.topic[partition][at].key += 1,
        }
        Some(())
    });
}

#[test]
fn a_record_that_nobody_has_sent_is_found() {
    planted(Rule::Foreign, |wrong| {
        let caller = wrong.any_caller() as u16;
        let strange = match wrong.random.one_in(2) {
            true => Stored {
                caller: u16::MAX,
                ..wrong.topic[0][0]
            },
            false => Stored {
                caller,
                send: u32::MAX,
                ..wrong.topic[0][0]
            },
        };
        wrong.topic[0].push(strange);
        Some(())
    });
}

#[test]
fn a_second_answer_is_found() {
    planted(Rule::AnsweredTwice, |wrong| {
        let caller = wrong.any_caller();
        let send = wrong.one(caller, |_, _, sent| sent.answer != Answer::Nothing)?;
        let answer = wrong.sent(caller, send).answer;
        wrong.callers[caller].answer(send, answer);
        Some(())
    });
}

#[test]
fn a_record_that_is_never_answered_is_found() {
    planted(Rule::Unanswered, |wrong| {
        let caller = wrong.any_caller();
        let send = wrong.one(caller, |_, _, sent| sent.answer != Answer::NotSent)?;
        wrong.sent(caller, send).answer = Answer::Nothing;
        Some(())
    });
}
