//! The message that settles records: acks are read straight into tokens, since nothing else is received as often.
//!
//! It takes the place of the type that would be generated. Who sends one fills it like any other.

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use super::proto;
use crate::consume::Token;

/// `outrigger.v1.Settle`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settle {
    /// Both ways.
    pub request_id: u64,
    /// To be sent.
    pub items: Vec<proto::SettleItem>,
    /// As received.
    pub(super) received: Vec<Received>,
}

/// An item that was received.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Received {
    Ack(Token),
    Other(proto::SettleItem),
}

/// An ack with its length in front: a field of 24 bytes, the token, and an empty message.
const ACK: usize = Token::LENGTH + 5;
const LENGTH: u8 = (ACK - 1) as u8;
const TOKEN: [u8; 2] = [1 << 3 | 2, Token::LENGTH as u8];
const DONE: [u8; 2] = [2 << 3 | 2, 0];

/// The token of an ack at the beginning of `bytes`, if there is one in the form that it has as a rule.
fn ack(bytes: &[u8]) -> Option<Token> {
    let (&[length, a, b], rest) = bytes.split_first_chunk()?;
    let (token, rest) = rest.split_first_chunk::<{ Token::LENGTH }>()?;
    let is_ack = length == LENGTH && [a, b] == TOKEN && rest.first_chunk() == Some(&DONE);
    if is_ack { Token::decode(token) } else { None }
}

impl Settle {
    /// To be sent.
    pub fn new(request_id: u64, items: Vec<proto::SettleItem>) -> Self {
        Self {
            request_id,
            items,
            received: Vec::new(),
        }
    }
}

impl Message for Settle {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        if self.request_id != 0 {
            encoding::uint64::encode(1, &self.request_id, buffer);
        }
        encoding::message::encode_repeated(2, &self.items, buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::uint64::merge(wire_type, &mut self.request_id, buffer, context),
            2 => {
                if wire_type == WireType::LengthDelimited
                    && let Some(token) = ack(buffer.chunk())
                {
                    buffer.advance(ACK);
                    self.received.push(Received::Ack(token));
                    return Ok(());
                }
                let mut item = proto::SettleItem::default();
                encoding::message::merge(wire_type, &mut item, buffer, context)?;
                self.received.push(Received::Other(item));
                Ok(())
            }
            _ => encoding::skip_field(wire_type, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let request_id = match self.request_id {
            0 => 0,
            id => encoding::uint64::encoded_len(1, &id),
        };
        request_id + encoding::message::encoded_len_repeated(2, &self.items)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::{option, prelude::*};

    use super::*;
    use crate::grpc::proto::settle_item::Action;

    fn item() -> impl Strategy<Value = proto::SettleItem> {
        let token = prop_oneof![
            prop::collection::vec(any::<u8>(), Token::LENGTH),
            prop::collection::vec(any::<u8>(), 0..40),
        ];
        let action = prop_oneof![
            Just(Action::Ack(proto::Ack {})),
            Just(Action::Release(proto::Release {})),
            ".{0,5}".prop_map(|reason| Action::Nack(proto::Nack {
                delay: None,
                reason
            })),
            ".{0,5}".prop_map(|reason| Action::DeadLetter(proto::DeadLetter { reason })),
        ];
        (token, option::of(action)).prop_map(|(token, action)| proto::SettleItem {
            token: token.into(),
            action,
        })
    }

    /// As it was sent.
    fn back(received: &Received) -> proto::SettleItem {
        match received {
            Received::Other(item) => item.clone(),
            Received::Ack(token) => proto::SettleItem {
                token: Bytes::copy_from_slice(&token.encode()),
                action: Some(Action::Ack(proto::Ack {})),
            },
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_received(request_id: u64, items in prop::collection::vec(item(), 0..6), cut in 1_usize..40) {
            let sent = Settle::new(request_id, items);
            let bytes = sent.encode_to_vec();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            // Whole, and in two pieces.
            for read in [Settle::decode(&bytes[..]), Settle::decode(first.chain(second))] {
                let read = read.unwrap();
                prop_assert_eq!(read.request_id, request_id);
                let received: Vec<_> = read.received.iter().map(back).collect();
                prop_assert_eq!(&received, &sent.items);
            }
        }

        #[test]
        fn whatever_is_received_ends(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Settle::decode(&bytes[..]);
        }
    }

    #[test]
    fn an_ack_is_read_in_the_short_way() {
        let ack = proto::SettleItem {
            token: Bytes::from_static(&[7; Token::LENGTH]),
            action: Some(Action::Ack(proto::Ack {})),
        };
        let sent = Settle::new(1, vec![ack]);
        let read = Settle::decode(&sent.encode_to_vec()[..]).unwrap();
        let token = Token::decode(&[7; Token::LENGTH]).unwrap();
        assert_eq!(read.received, [Received::Ack(token)]);
    }
}
