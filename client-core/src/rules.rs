//! Who may change a room: the part of the policy that members enforce
//! themselves, so that a dishonest server can neither add a reader nor promote
//! an owner (DESIGN section 4). Pure: facts in, verdict out.

use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use prost::Message;
use sotto_proto::signed::{DeviceCertificate, JoinGrant, key_bytes, public_key};
use sotto_proto::wire::{self, JoinRule, Signed};
use sotto_proto::{DeviceId, OrgName, RoomAddress, UserName, limits};

use crate::account::millis;
use crate::io::Timestamp;
use crate::orders::{self, NoOrder, Order, SpentOrder};

/// What the group context says of a room; every member agrees on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) org: OrgName,
    pub(crate) address: RoomAddress,
    pub(crate) owners: Vec<(UserName, VerifyingKey)>,
    pub(crate) join_rule: JoinRule,
    pub(crate) gateway_key: VerifyingKey,
    /// Removal orders that were carried out, sorted.
    pub(crate) spent: Vec<SpentOrder>,
}

impl Rules {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let owner = |(user, key): &(UserName, VerifyingKey)| wire::Owner {
            user: user.to_string(),
            identity_key: key_bytes(key),
        };
        let rules = wire::RoomRules {
            address: Some((&self.address).into()),
            org: self.org.to_string(),
            owners: self.owners.iter().map(owner).collect(),
            join_rule: self.join_rule.into(),
            gateway_key: key_bytes(&self.gateway_key),
            spent_orders: self.spent.iter().map(Into::into).collect(),
        };
        rules.encode_to_vec()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let rules = wire::RoomRules::decode(bytes).ok()?;
        let owner = |owner: &wire::Owner| {
            Some((
                owner.user.parse().ok()?,
                public_key(&owner.identity_key).ok()?,
            ))
        };
        Some(Self {
            org: rules.org.parse().ok()?,
            address: RoomAddress::try_from(rules.address.as_ref()?).ok()?,
            owners: rules.owners.iter().map(owner).collect::<Option<_>>()?,
            join_rule: JoinRule::try_from(rules.join_rule).ok()?,
            gateway_key: public_key(&rules.gateway_key).ok()?,
            spent: rules
                .spent_orders
                .iter()
                .map(|spent| SpentOrder::try_from(spent).ok())
                .collect::<Option<_>>()?,
        })
    }

    pub(crate) fn is_owner(&self, member: &Member) -> bool {
        self.owners
            .iter()
            .any(|(user, key)| *user == member.user && *key == member.identity_key)
    }
}

/// One leaf of a room's tree: a device, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) user: UserName,
    pub(crate) device: DeviceId,
    pub(crate) identity_key: VerifyingKey,
}

impl Member {
    pub(crate) fn same_user(&self, other: &Self) -> bool {
        self.user == other.user && self.identity_key == other.identity_key
    }
}

impl From<&DeviceCertificate> for Member {
    fn from(certificate: &DeviceCertificate) -> Self {
        Self {
            user: certificate.user.clone(),
            device: certificate.device,
            identity_key: certificate.identity_key,
        }
    }
}

/// Who made a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, never in a collection"
)]
pub(crate) enum Committer {
    Member(Member),
    /// Nobody yet: an external commit, which adds its sender.
    Joining,
}

/// What a commit would do.
pub(crate) struct Change {
    pub(crate) committer: Committer,
    /// Credentials of the leaves that it adds, as they came, with the leaves'
    /// signature keys.
    pub(crate) added: Vec<Leaf>,
    pub(crate) removed: Vec<Member>,
    /// The rules from then on, when it changes them.
    pub(crate) rules: Option<Box<Rules>>,
    /// The members that stay; looked up only when it changes the rules.
    pub(crate) staying: Vec<Member>,
    /// The commit also does what only later versions know how to judge.
    pub(crate) other_proposals: bool,
    /// The commit's authenticated data.
    pub(crate) authenticated_data: Vec<u8>,
    /// When the server stored it.
    pub(crate) stored_at: Timestamp,
}

/// A leaf's credential and signature key, not checked yet.
pub(crate) struct Leaf {
    pub(crate) credential: Vec<u8>,
    pub(crate) signature_key: Vec<u8>,
}

impl Leaf {
    /// Checks that the credential is a device certificate of `org` for just
    /// this signature key.
    pub(crate) fn verify(&self, org: &OrgName) -> Result<DeviceCertificate, Violation> {
        let signed =
            Signed::decode(self.credential.as_slice()).map_err(|_| Violation::Credential)?;
        let certificate = DeviceCertificate::verify(&signed).map_err(|_| Violation::Credential)?;
        let fits = certificate.org == *org
            && certificate.signature_key.as_bytes() == self.signature_key.as_slice();
        if fits {
            Ok(certificate)
        } else {
            Err(Violation::Credential)
        }
    }
}

/// Why a commit is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a credential is not a device certificate of this organisation")]
    Credential,
    #[error("the identity key of {0} has changed")]
    IdentityChanged(UserName),
    #[error("there is no valid grant of the gateway for a device that it adds")]
    NoGrant,
    #[error("its sender may not add that user")]
    MayNotAdd,
    #[error("its sender may not remove that user")]
    MayNotRemove,
    #[error("it carries a removal order that does not count: {0}")]
    NoOrder(#[from] NoOrder),
    #[error("it does not remove everybody whom its removal orders name")]
    HalfCarriedOut,
    #[error("it changes the room's rules")]
    Rules,
    #[error("it changes what this version cannot judge: update sotto")]
    Unknown,
}

/// The certificates of the added devices when the change is allowed; `known`
/// is the identity key first seen for a user.
pub(crate) fn check(
    rules: &Rules,
    change: &Change,
    known: impl Fn(&UserName) -> Option<VerifyingKey>,
) -> Result<Vec<DeviceCertificate>, Violation> {
    if change.other_proposals {
        return Err(Violation::Unknown);
    }
    let data = wire::CommitAuthenticatedData::decode(change.authenticated_data.as_slice())
        .unwrap_or_default();
    let orders = check_orders(rules, change, &data)?;
    let mut added = Vec::new();
    for leaf in &change.added {
        let certificate = leaf.verify(&rules.org)?;
        check_identity(&certificate, &known)?;
        check_grant(rules, &certificate, &data.grants, change.stored_at)?;
        let newcomer = Member::from(&certificate);
        let allowed = match &change.committer {
            Committer::Member(member) => rules.is_owner(member) || member.same_user(&newcomer),
            Committer::Joining => rules.join_rule == JoinRule::Open,
        };
        if !allowed {
            return Err(Violation::MayNotAdd);
        }
        added.push(certificate);
    }
    for removed in &change.removed {
        let allowed = match &change.committer {
            Committer::Member(member) => {
                let ordered = orders.iter().any(|order| order.names(removed));
                ordered || rules.is_owner(member) || member.same_user(removed)
            }
            Committer::Joining => false,
        };
        if !allowed {
            return Err(Violation::MayNotRemove);
        }
    }
    Ok(added)
}

/// The removal orders that a commit carries out: every one counts, is carried
/// out in whole, and is spent by it; the rules change in no other way.
fn check_orders(
    rules: &Rules,
    change: &Change,
    data: &wire::CommitAuthenticatedData,
) -> Result<Vec<Order>, Violation> {
    let orders = orders::of_commit(rules, data, change.stored_at)?;
    let expected = (!orders.is_empty()).then(|| orders::spend(rules, &orders));
    if change.rules.as_deref() != expected.as_ref() {
        return Err(Violation::Rules);
    }
    let stays = |order: &Order| change.staying.iter().any(|member| order.names(member));
    if orders.iter().any(stays) {
        return Err(Violation::HalfCarriedOut);
    }
    Ok(orders)
}

/// Fails when a user is known by another identity key.
pub(crate) fn check_identity(
    certificate: &DeviceCertificate,
    known: impl Fn(&UserName) -> Option<VerifyingKey>,
) -> Result<(), Violation> {
    match known(&certificate.user) {
        Some(key) if key != certificate.identity_key => {
            Err(Violation::IdentityChanged(certificate.user.clone()))
        }
        _ => Ok(()),
    }
}

fn check_grant(
    rules: &Rules,
    certificate: &DeviceCertificate,
    grants: &[Signed],
    stored_at: Timestamp,
) -> Result<(), Violation> {
    let oldest = stored_at.0.saturating_sub(millis(limits::CLOCK_SKEW));
    let fits = |grant: &JoinGrant| {
        grant.org == rules.org
            && grant.room == rules.address.room
            && grant.user == certificate.user
            && grant.device == certificate.device
            && grant.identity_key == certificate.identity_key
            && grant.not_after_ms >= oldest
    };
    let mut verified = grants
        .iter()
        .filter_map(|g| JoinGrant::verify(g, &rules.gateway_key).ok());
    if verified.any(|grant| fits(&grant)) {
        Ok(())
    } else {
        Err(Violation::NoGrant)
    }
}

/// The authenticated data of a commit with these grants.
pub(crate) fn authenticated_data(grants: Vec<Signed>) -> Bytes {
    let data = wire::CommitAuthenticatedData {
        grants,
        removal_orders: Vec::new(),
    };
    data.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::account::tests::{account, gateway_key};
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;
    use sotto_proto::{RoomId, Shard};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    struct Case {
        owner: Account,
        member: Account,
        newcomer: Account,
        rules: Rules,
    }

    fn case(join_rule: JoinRule) -> Case {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let owner = account("owner", &mut rng);
        let rules = Rules {
            org: "acme".parse().unwrap(),
            address: RoomAddress {
                shard: Shard(0),
                project: "field".parse().unwrap(),
                room: RoomId::random(&mut rng),
            },
            owners: vec![(owner.user.clone(), owner.identity.verifying_key())],
            join_rule,
            gateway_key: gateway_key().verifying_key(),
            spent: Vec::new(),
        };
        Case {
            owner,
            member: account("member", &mut rng),
            newcomer: account("newcomer", &mut rng),
            rules,
        }
    }

    fn member(account: &Account) -> Member {
        Member {
            user: account.user.clone(),
            device: account.device,
            identity_key: account.identity.verifying_key(),
        }
    }

    fn grant(case: &Case, account: &Account, not_after_ms: i64) -> Signed {
        let grant = JoinGrant {
            org: case.rules.org.clone(),
            room: case.rules.address.room,
            user: account.user.clone(),
            device: account.device,
            identity_key: account.identity.verifying_key(),
            policy_version: 1,
            not_after_ms,
        };
        grant.sign(&gateway_key())
    }

    fn adding(case: &Case, committer: Committer, grants: Vec<Signed>) -> Change {
        Change {
            committer,
            added: vec![Leaf {
                credential: case.newcomer.certificate().encode_to_vec(),
                signature_key: case.newcomer.leaf.verifying_key().to_bytes().to_vec(),
            }],
            removed: vec![],
            rules: None,
            staying: vec![],
            other_proposals: false,
            authenticated_data: authenticated_data(grants).to_vec(),
            stored_at: NOW,
        }
    }

    fn nobody(_: &UserName) -> Option<VerifyingKey> {
        None
    }

    #[test]
    fn who_may_add_whom() {
        for (rule, as_owner, as_member, joining) in [
            (JoinRule::Invite, true, false, false),
            (JoinRule::Open, true, false, true),
        ] {
            let case = case(rule);
            let verdict = |committer| {
                let grants = vec![grant(&case, &case.newcomer, NOW.0)];
                check(&case.rules, &adding(&case, committer, grants), nobody).is_ok()
            };
            assert_eq!(verdict(Committer::Member(member(&case.owner))), as_owner);
            assert_eq!(verdict(Committer::Member(member(&case.member))), as_member);
            assert_eq!(verdict(Committer::Joining), joining);
            let same_user = Committer::Member(member(&case.newcomer));
            assert!(verdict(same_user), "a user adds own devices");
        }
    }

    #[test]
    fn an_add_needs_a_grant_for_just_this_device_of_just_this_room() {
        let case = case(JoinRule::Invite);
        let verdict = |grants| {
            let committer = Committer::Member(member(&case.owner));
            check(&case.rules, &adding(&case, committer, grants), nobody).err()
        };
        assert_eq!(verdict(vec![grant(&case, &case.newcomer, NOW.0)]), None);
        assert_eq!(verdict(vec![]), Some(Violation::NoGrant));
        assert_eq!(
            verdict(vec![grant(&case, &case.member, NOW.0)]),
            Some(Violation::NoGrant)
        );
        let long_ago = NOW.0 - 2 * millis(limits::CLOCK_SKEW);
        assert_eq!(
            verdict(vec![grant(&case, &case.newcomer, long_ago)]),
            Some(Violation::NoGrant)
        );
        let mut forged = grant(&case, &case.newcomer, NOW.0);
        forged.signature = grant(&case, &case.member, NOW.0).signature;
        assert_eq!(verdict(vec![forged]), Some(Violation::NoGrant));
        let mut elsewhere = self::case(JoinRule::Invite);
        elsewhere.rules.address.room = RoomId::random(&mut ChaCha20Rng::seed_from_u64(9));
        let foreign = grant(&elsewhere, &case.newcomer, NOW.0);
        assert_eq!(verdict(vec![foreign]), Some(Violation::NoGrant));
    }

    #[test]
    fn a_changed_identity_is_refused() {
        let case = case(JoinRule::Invite);
        let committer = Committer::Member(member(&case.owner));
        let change = adding(&case, committer, vec![grant(&case, &case.newcomer, NOW.0)]);
        let before = case.member.identity.verifying_key();
        let refused = check(&case.rules, &change, |_| Some(before)).err();
        assert_eq!(
            refused,
            Some(Violation::IdentityChanged(case.newcomer.user.clone()))
        );
    }

    #[test]
    fn a_credential_for_another_key_is_refused() {
        let case = case(JoinRule::Invite);
        let mut change = adding(
            &case,
            Committer::Member(member(&case.owner)),
            vec![grant(&case, &case.newcomer, NOW.0)],
        );
        change.added[0].signature_key = case.member.leaf.verifying_key().to_bytes().to_vec();
        assert_eq!(
            check(&case.rules, &change, nobody).err(),
            Some(Violation::Credential)
        );
    }

    #[test]
    fn only_owners_and_the_user_remove() {
        let case = case(JoinRule::Open);
        let verdict = |committer| {
            let mut change = adding(&case, committer, vec![]);
            change.added.clear();
            change.removed = vec![member(&case.newcomer)];
            check(&case.rules, &change, nobody).is_ok()
        };
        assert!(verdict(Committer::Member(member(&case.owner))));
        assert!(verdict(Committer::Member(member(&case.newcomer))));
        assert!(!verdict(Committer::Member(member(&case.member))));
        assert!(!verdict(Committer::Joining));
    }

    /// The change by which `case.member` removes the newcomer on this order.
    fn removing_on_order(case: &Case, signed: &Signed) -> Change {
        let order = Order::verify(&case.rules, signed, NOW).unwrap();
        let mut change = adding(case, Committer::Member(member(&case.member)), vec![]);
        change.added.clear();
        change.removed = vec![member(&case.newcomer)];
        change.staying = vec![member(&case.owner), member(&case.member)];
        let after = orders::spend(&case.rules, std::slice::from_ref(&order));
        change.rules = Some(Box::new(after));
        change.authenticated_data = orders::authenticated_data(&[order]);
        change
    }

    fn order(case: &Case, account: &Account) -> Signed {
        orders::tests::statement(&case.rules, &member(account), NOW).sign(&gateway_key())
    }

    #[test]
    fn any_member_removes_whom_an_order_names_once() {
        let case = case(JoinRule::Invite);
        let change = removing_on_order(&case, &order(&case, &case.newcomer));
        assert_eq!(check(&case.rules, &change, nobody), Ok(vec![]));
        let after = change.rules.clone().unwrap();
        assert_eq!(
            check(&after, &change, nobody),
            Err(Violation::NoOrder(NoOrder::Spent)),
            "the same commit again, after the newcomer has come back"
        );
    }

    #[test]
    fn an_order_removes_nobody_else_and_nobody_in_part() {
        let case = case(JoinRule::Invite);
        let of_newcomer = order(&case, &case.newcomer);
        let mut other = removing_on_order(&case, &of_newcomer);
        other.removed = vec![member(&case.owner)];
        assert_eq!(
            check(&case.rules, &other, nobody),
            Err(Violation::MayNotRemove)
        );
        let mut half = removing_on_order(&case, &of_newcomer);
        let mut second = member(&case.newcomer);
        second.device = case.member.device;
        half.staying.push(second);
        assert_eq!(
            check(&case.rules, &half, nobody),
            Err(Violation::HalfCarriedOut)
        );
    }

    #[test]
    fn an_order_is_spent_by_its_commit_and_nothing_else_changes_the_rules() {
        let case = case(JoinRule::Invite);
        let of_newcomer = order(&case, &case.newcomer);
        let verdict = |rules: Option<Box<Rules>>, data: &[u8]| {
            let mut change = removing_on_order(&case, &of_newcomer);
            change.committer = Committer::Member(member(&case.owner));
            change.rules = rules;
            change.authenticated_data = data.to_vec();
            check(&case.rules, &change, nobody).err()
        };
        let good = removing_on_order(&case, &of_newcomer);
        let data = &good.authenticated_data;
        assert_eq!(verdict(good.rules.clone(), data), None);
        assert_eq!(verdict(None, data), Some(Violation::Rules));
        assert_eq!(verdict(good.rules.clone(), &[]), Some(Violation::Rules));
        let mut promoted = good.rules.clone().unwrap();
        let newcomer = &case.newcomer;
        let owner = (newcomer.user.clone(), newcomer.identity.verifying_key());
        promoted.owners.push(owner);
        assert_eq!(verdict(Some(promoted), data), Some(Violation::Rules));
    }

    #[test]
    fn rules_survive_encoding() {
        let rules = case(JoinRule::Open).rules;
        assert_eq!(Rules::decode(&rules.encode()), Some(rules));
        assert_eq!(Rules::decode(b"garbage"), None);
    }
}
