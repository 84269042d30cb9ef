//! An org of any size in memory, the same one each time.

use std::sync::Arc;

use anyhow::Context;
use ed25519_dalek::{SigningKey, VerifyingKey};
use nkeys::{KeyPair, KeyPairType};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sotto_jwt_accounts::directory::{Actor, Change, Event, Holder, InviteHash, Role, Scope, State};
use sotto_jwt_accounts::policy::LevelPolicy;
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{self, JoinRule};
use sotto_proto::{DeviceId, GroupName, OrgName, ProjectName, RoomId, Shard, UserName};

/// When everything happens, in ms since 1970.
pub(crate) const NOW_MS: i64 = 1_800_000_000_000;

/// Rooms that each user was given a role in.
const ROOMS_PER_USER: usize = 3;
/// Each this many users, one group of as many.
const GROUP: usize = 50;
/// Each this many projects or rooms, one with a policy of its own.
const POLICY: usize = 20;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) users: usize,
    pub(crate) projects: usize,
    pub(crate) rooms: usize,
}

/// The org.
pub(crate) struct Org {
    pub(crate) name: OrgName,
    pub(crate) state: State,
    pub(crate) users: Vec<UserName>,
    pub(crate) rooms: Vec<RoomId>,
}

impl Org {
    /// Applies every event that makes it; takes about a minute when it is large.
    pub(crate) fn build(size: Size) -> anyhow::Result<Self> {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let name = name()?;
        let mut org = Self {
            state: State::default(),
            users: Vec::with_capacity(size.users),
            rooms: Vec::with_capacity(size.rooms),
            name: name.clone(),
        };
        org.apply(Change::OrgCreated {
            org: name,
            gateway_key: gateway_key(),
        })?;
        org.set_policy(Scope::Org, wire::PolicyAction::Manage)?;
        let projects = org.create_projects(size.projects)?;
        for _ in 0..size.rooms {
            let room = RoomId::random(&mut rng);
            let project = pick(&mut rng, &projects)?.clone();
            org.create_room(room, project)?;
        }
        for number in 0..size.users {
            org.enrol(number, &projects, &mut rng)?;
        }
        org.create_groups(&mut rng)?;
        Ok(org)
    }

    /// Every device, in the order of the users.
    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceId> {
        let users = self.users.iter().filter_map(|user| self.state.user(user));
        users.flat_map(|user| user.devices().map(|device| device.certificate.device))
    }

    fn create_projects(&mut self, count: usize) -> anyhow::Result<Vec<ProjectName>> {
        let mut projects = Vec::with_capacity(count);
        for number in 0..count {
            let project: ProjectName = format!("project-{number}").parse()?;
            self.apply(Change::ProjectCreated {
                project: project.clone(),
            })?;
            if number % POLICY == 0 {
                let scope = Scope::Project(project.clone());
                self.set_policy(scope, wire::PolicyAction::Post)?;
            }
            projects.push(project);
        }
        Ok(projects)
    }

    fn create_room(&mut self, room: RoomId, project: ProjectName) -> anyhow::Result<()> {
        self.apply(Change::RoomCreated {
            room,
            project,
            shard: Shard(0),
            join_rule: JoinRule::Invite,
        })?;
        if self.rooms.len().is_multiple_of(POLICY) {
            self.set_policy(Scope::Room(room), wire::PolicyAction::Read)?;
        }
        self.rooms.push(room);
        Ok(())
    }

    fn enrol(
        &mut self,
        number: usize,
        projects: &[ProjectName],
        rng: &mut ChaCha20Rng,
    ) -> anyhow::Result<()> {
        let user: UserName = format!("user-{number}").parse()?;
        let mut invite = InviteHash([0; 32]);
        rng.fill_bytes(&mut invite.0);
        let identity = SigningKey::generate(rng);
        let project = Scope::Project(pick(rng, projects)?.clone());
        self.apply(Change::InviteIssued {
            invite,
            expires_ms: i64::MAX,
            scope: project.clone(),
            role: Role::User,
            for_user: None,
            guest_until_ms: None,
        })?;
        self.apply(Change::UserEnrolled {
            user: user.clone(),
            identity_key: identity.verifying_key(),
            invite,
        })?;
        let certificate = self.certificate(&user, &identity, rng)?;
        let signed = certificate.sign(&identity);
        self.apply(Change::DeviceAdded {
            certificate,
            signed,
        })?;
        let holder = Holder::User(user.clone());
        let role = if number == 0 { Role::Owner } else { Role::User };
        let org = (number == 0).then_some((Scope::Org, role));
        for (scope, role) in org.into_iter().chain([(project, Role::User)]) {
            self.grant(holder.clone(), scope, role)?;
        }
        for _ in 0..ROOMS_PER_USER {
            let room = *pick(rng, &self.rooms)?;
            if self.state.granted_role(&user, &Scope::Room(room)).is_none() {
                self.grant(holder.clone(), Scope::Room(room), Role::User)?;
            }
        }
        self.users.push(user);
        Ok(())
    }

    fn certificate(
        &self,
        user: &UserName,
        identity: &SigningKey,
        rng: &mut ChaCha20Rng,
    ) -> anyhow::Result<DeviceCertificate> {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        Ok(DeviceCertificate {
            org: self.name.clone(),
            user: user.clone(),
            device: DeviceId::random(rng),
            identity_key: identity.verifying_key(),
            signature_key: SigningKey::generate(rng).verifying_key(),
            nats_key: KeyPair::new_from_raw(KeyPairType::User, seed)?.public_key(),
            not_before_ms: NOW_MS,
            not_after_ms: NOW_MS + 1_000_000_000_000,
        })
    }

    fn create_groups(&mut self, rng: &mut ChaCha20Rng) -> anyhow::Result<()> {
        for number in 0..self.users.len() / GROUP {
            let group: GroupName = format!("group-{number}").parse()?;
            self.apply(Change::GroupCreated {
                group: group.clone(),
                title: None,
                external_id: None,
            })?;
            for _ in 0..GROUP {
                let user = pick(rng, &self.users)?.clone();
                let found = self.state.group(&group);
                if found.is_some_and(|group| !group.members.contains(&user)) {
                    self.apply(Change::GroupMemberAdded {
                        group: group.clone(),
                        user,
                    })?;
                }
            }
            let room = *pick(rng, &self.rooms)?;
            self.grant(Holder::Group(group), Scope::Room(room), Role::User)?;
        }
        Ok(())
    }

    fn grant(&mut self, holder: Holder, scope: Scope, role: Role) -> anyhow::Result<()> {
        self.apply(Change::RoleGranted {
            holder,
            scope,
            role,
        })
    }

    /// TOTP not older than eight hours, for one action.
    fn set_policy(&mut self, scope: Scope, action: wire::PolicyAction) -> anyhow::Result<()> {
        let demand = wire::Demand {
            actions: vec![action.into()],
            factor: wire::Factor::Totp.into(),
            max_age_seconds: 8 * 3_600,
            ..wire::Demand::default()
        };
        let policy = wire::Policy {
            demands: vec![demand],
            cedar: String::new(),
        };
        let policy = Some(Arc::new(LevelPolicy::try_from(policy)?));
        self.apply(Change::PolicySet { scope, policy })
    }

    fn apply(&mut self, change: Change) -> anyhow::Result<()> {
        let event = Event {
            index: self.state.head().length,
            previous: self.state.head().hash,
            at_ms: NOW_MS,
            actor: Actor::Gateway,
            change,
        };
        Ok(self.state.apply(&event)?)
    }
}

/// What it is called.
pub(crate) fn name() -> anyhow::Result<OrgName> {
    Ok("acme".parse()?)
}

/// The key that signs its log.
pub(crate) fn gateway_key() -> VerifyingKey {
    SigningKey::from_bytes(&[1; 32]).verifying_key()
}

fn pick<'a, T>(rng: &mut ChaCha20Rng, from: &'a [T]) -> anyhow::Result<&'a T> {
    let place = rng.gen_range(0..from.len().max(1));
    from.get(place).context("an org needs projects and rooms")
}
