//! Removal orders: which ones count in a room, and whom they name. Pure, and
//! from nothing but what every member has alike (the order, the room's rules,
//! the time at which the server stored something), so that members never
//! disagree about a commit that carries orders out.

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sotto_proto::limits;
use sotto_proto::signed::RemovalOrder;
use sotto_proto::wire::{self, Signed, room_notice};

use crate::account::millis;
use crate::io::Timestamp;
use crate::rules::{Member, Rules};

/// Why an order does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoOrder {
    #[error("it is not signed by this organisation's gateway")]
    Signature,
    #[error("it is for another room")]
    OtherRoom,
    #[error("its time is over, or has not come")]
    Time,
    #[error("it was carried out before")]
    Spent,
}

/// An order that counts in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    statement: RemovalOrder,
    hash: [u8; 16],
    signed: Signed,
}

impl Order {
    /// Checks an order of which the server stored a copy at `stored_at`.
    pub(crate) fn verify(
        rules: &Rules,
        signed: &Signed,
        stored_at: Timestamp,
    ) -> Result<Self, NoOrder> {
        let statement =
            RemovalOrder::verify(signed, &rules.gateway_key).map_err(|_| NoOrder::Signature)?;
        if statement.org != rules.org || statement.room != rules.address.room {
            return Err(NoOrder::OtherRoom);
        }
        let order = Self {
            hash: hash(&signed.statement),
            statement,
            signed: signed.clone(),
        };
        let earliest = stored_at.0.saturating_add(millis(limits::CLOCK_SKEW));
        if order.statement.at_ms > earliest || order.last_moment() < stored_at {
            return Err(NoOrder::Time);
        }
        if rules.spent.iter().any(|spent| spent.hash == order.hash) {
            return Err(NoOrder::Spent);
        }
        Ok(order)
    }

    /// Whether it takes this member out.
    pub(crate) fn names(&self, member: &Member) -> bool {
        self.statement.user == member.user
            && self.statement.identity_key == member.identity_key
            && self
                .statement
                .device
                .is_none_or(|device| device == member.device)
    }

    /// What is stored later does not carry it out any more.
    pub(crate) fn last_moment(&self) -> Timestamp {
        let lifetime = millis(limits::REMOVAL_ORDER);
        Timestamp(self.statement.at_ms.saturating_add(lifetime))
    }
}

/// An order that waits to be carried out, format 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WaitingOrder {
    #[serde(with = "serde_bytes")]
    statement: Vec<u8>,
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
    stored_at_ms: i64,
}

impl WaitingOrder {
    pub(crate) fn new(order: &Order, stored_at: Timestamp) -> Self {
        Self {
            statement: order.signed.statement.to_vec(),
            signature: order.signed.signature.to_vec(),
            stored_at_ms: stored_at.0,
        }
    }

    /// The order, if it still counts under these rules.
    pub(crate) fn order(&self, rules: &Rules) -> Option<Order> {
        let signed = Signed {
            statement: Bytes::copy_from_slice(&self.statement),
            signature: Bytes::copy_from_slice(&self.signature),
        };
        Order::verify(rules, &signed, Timestamp(self.stored_at_ms)).ok()
    }
}

/// An order that was carried out, as the room's rules keep it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SpentOrder {
    at_ms: i64,
    hash: [u8; 16],
}

impl From<&SpentOrder> for wire::SpentOrder {
    fn from(spent: &SpentOrder) -> Self {
        Self {
            hash: Bytes::copy_from_slice(&spent.hash),
            at_ms: spent.at_ms,
        }
    }
}

impl TryFrom<&wire::SpentOrder> for SpentOrder {
    type Error = std::array::TryFromSliceError;

    fn try_from(spent: &wire::SpentOrder) -> Result<Self, Self::Error> {
        Ok(Self {
            at_ms: spent.at_ms,
            hash: spent.hash.as_ref().try_into()?,
        })
    }
}

/// The rules after a commit that carries these orders out. What could not
/// count any more even if it came again is forgotten.
pub(crate) fn spend(rules: &Rules, orders: &[Order]) -> Rules {
    let mut rules = rules.clone();
    rules.spent.extend(orders.iter().map(|order| SpentOrder {
        at_ms: order.statement.at_ms,
        hash: order.hash,
    }));
    rules.spent.sort();
    let newest = rules.spent.last().map_or(0, |spent| spent.at_ms);
    let lifetime = millis(limits::REMOVAL_ORDER).saturating_add(millis(limits::CLOCK_SKEW));
    let oldest = newest.saturating_sub(lifetime);
    rules.spent.retain(|spent| spent.at_ms >= oldest);
    rules
}

/// The order in a handshake that is a notice of the gateway; `None` for
/// everything else, MLS messages above all.
pub(crate) fn of_notice(payload: &Bytes) -> Option<Signed> {
    if payload.len() > limits::NOTICE || payload.first() == Some(&0) {
        return None;
    }
    match wire::RoomNotice::decode(payload.clone()).ok()?.kind? {
        room_notice::Kind::RemovalOrder(signed) => Some(signed),
    }
}

/// The orders that a commit carries out, each of which must count.
pub(crate) fn of_commit(
    rules: &Rules,
    data: &wire::CommitAuthenticatedData,
    stored_at: Timestamp,
) -> Result<Vec<Order>, NoOrder> {
    let mut orders: Vec<Order> = Vec::new();
    for signed in data.removal_orders.iter().take(limits::REMOVAL_ORDERS + 1) {
        let order = Order::verify(rules, signed, stored_at)?;
        if orders.len() == limits::REMOVAL_ORDERS || orders.contains(&order) {
            return Err(NoOrder::Spent);
        }
        orders.push(order);
    }
    Ok(orders)
}

/// The authenticated data of a commit that carries these orders out.
pub(crate) fn authenticated_data(orders: &[Order]) -> Vec<u8> {
    let data = wire::CommitAuthenticatedData {
        grants: Vec::new(),
        removal_orders: orders.iter().map(|order| order.signed.clone()).collect(),
    };
    data.encode_to_vec()
}

fn hash(statement: &[u8]) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(statement).into();
    let (first, _) = digest.split_at(16);
    first.try_into().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::account::tests::gateway_key;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;
    use sotto_proto::wire::JoinRule;
    use sotto_proto::{DeviceId, RoomAddress, RoomId, Shard, UserName};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn rules() -> Rules {
        Rules {
            org: "acme".parse().unwrap(),
            address: RoomAddress {
                shard: Shard(0),
                project: "field".parse().unwrap(),
                room: RoomId::try_from(&[7; 16][..]).unwrap(),
            },
            owners: Vec::new(),
            join_rule: JoinRule::Invite,
            gateway_key: gateway_key().verifying_key(),
            spent: Vec::new(),
        }
    }

    fn member(user: &str, device: u8) -> Member {
        let user: UserName = user.parse().unwrap();
        Member {
            identity_key: SigningKey::from_bytes(&[user.as_str().len() as u8; 32]).verifying_key(),
            user,
            device: DeviceId::try_from(&[device; 16][..]).unwrap(),
        }
    }

    pub(crate) fn statement(rules: &Rules, member: &Member, at: Timestamp) -> RemovalOrder {
        RemovalOrder {
            org: rules.org.clone(),
            room: rules.address.room,
            user: member.user.clone(),
            identity_key: member.identity_key,
            device: None,
            at_ms: at.0,
        }
    }

    fn order(at: Timestamp) -> Signed {
        statement(&rules(), &member("eve", 1), at).sign(&gateway_key())
    }

    #[test]
    fn an_order_counts_for_thirty_days() {
        let verdict = |at_ms: i64| Order::verify(&rules(), &order(Timestamp(at_ms)), NOW).err();
        let (days, skew) = (millis(limits::REMOVAL_ORDER), millis(limits::CLOCK_SKEW));
        assert_eq!(verdict(NOW.0), None);
        assert_eq!(verdict(NOW.0 - days), None);
        assert_eq!(verdict(NOW.0 - days - 1), Some(NoOrder::Time));
        assert_eq!(verdict(NOW.0 + skew), None);
        assert_eq!(verdict(NOW.0 + skew + 1), Some(NoOrder::Time));
        assert_eq!(verdict(i64::MIN), Some(NoOrder::Time));
        assert_eq!(verdict(i64::MAX), Some(NoOrder::Time));
    }

    #[test]
    fn an_order_counts_in_its_room_only_and_from_the_gateway_only() {
        let eve = member("eve", 1);
        let mut elsewhere = statement(&rules(), &eve, NOW);
        elsewhere.room = RoomId::try_from(&[8; 16][..]).unwrap();
        let mut of_another = statement(&rules(), &eve, NOW);
        of_another.org = "other".parse().unwrap();
        for foreign in [elsewhere, of_another] {
            let verdict = Order::verify(&rules(), &foreign.sign(&gateway_key()), NOW);
            assert_eq!(verdict, Err(NoOrder::OtherRoom));
        }
        let forged = statement(&rules(), &eve, NOW).sign(&SigningKey::from_bytes(&[66; 32]));
        assert_eq!(
            Order::verify(&rules(), &forged, NOW),
            Err(NoOrder::Signature)
        );
    }

    #[test]
    fn whom_an_order_names() {
        let (one, two) = (member("eve", 1), member("eve", 2));
        let mut namesake = one.clone();
        namesake.identity_key = SigningKey::from_bytes(&[99; 32]).verifying_key();
        let of_user = Order::verify(&rules(), &order(NOW), NOW).unwrap();
        assert!(of_user.names(&one) && of_user.names(&two));
        assert!(!of_user.names(&namesake), "another identity of that name");
        assert!(!of_user.names(&member("mallory", 1)));
        let mut of_device = statement(&rules(), &one, NOW);
        of_device.device = Some(one.device);
        let of_device = Order::verify(&rules(), &of_device.sign(&gateway_key()), NOW).unwrap();
        assert!(of_device.names(&one) && !of_device.names(&two));
    }

    #[test]
    fn a_commit_carries_each_order_once_and_not_too_many() {
        let data = |orders: Vec<Signed>| wire::CommitAuthenticatedData {
            grants: Vec::new(),
            removal_orders: orders,
        };
        let many = |n: i64| (0..n).map(|n| order(Timestamp(NOW.0 - n))).collect();
        let most = limits::REMOVAL_ORDERS as i64;
        assert_eq!(
            of_commit(&rules(), &data(many(most)), NOW).unwrap().len(),
            limits::REMOVAL_ORDERS
        );
        for bad in [many(most + 1), vec![order(NOW), order(NOW)]] {
            assert_eq!(of_commit(&rules(), &data(bad), NOW), Err(NoOrder::Spent));
        }
    }

    #[test]
    fn an_mls_message_is_no_notice() {
        let notice = statement(&rules(), &member("eve", 1), NOW).notice(&gateway_key());
        let notice: Bytes = notice.encode_to_vec().into();
        assert_eq!(of_notice(&notice), Some(order(NOW)));
        let mls = [&[0][..], &notice].concat();
        assert_eq!(of_notice(&mls.into()), None);
        let long = [&notice[..], &[0x7a, 0xff, 0x07], &[0; 1_023]].concat();
        assert_eq!(of_notice(&long.into()), None);
        assert_eq!(of_notice(&Bytes::new()), None);
    }

    proptest! {
        #[test]
        fn a_spent_order_never_counts_again(
            ages in proptest::collection::vec(0..40 * 86_400_000i64, 1..40),
            later in 0..40 * 86_400_000i64,
        ) {
            let mut rules = rules();
            let mut carried_out = Vec::new();
            // Each commit is stored some time after the one before.
            for (n, age) in ages.iter().enumerate() {
                let stored_at = Timestamp(NOW.0 + n as i64 * 86_400_000);
                let signed = order(Timestamp(stored_at.0 - age));
                if let Ok(order) = Order::verify(&rules, &signed, stored_at) {
                    rules = spend(&rules, &[order]);
                    carried_out.push(signed);
                }
            }
            let end = Timestamp(NOW.0 + ages.len() as i64 * 86_400_000 + later);
            for signed in carried_out {
                prop_assert!(Order::verify(&rules, &signed, end).is_err());
            }
            prop_assert!(rules.spent.is_sorted());
            prop_assert_eq!(Rules::decode(&rules.encode()), Some(rules));
        }

        #[test]
        fn any_bytes_are_a_notice_or_none(bytes: Vec<u8>) {
            if let Some(signed) = of_notice(&bytes.into()) {
                prop_assert!(Order::verify(&rules(), &signed, NOW).is_err());
            }
        }
    }
}
