//! A room's MLS group (RFC 9420): what openmls does for it, in the words of
//! the rest of the client. Decides nothing: who may is [`crate::rules`]', when
//! is the engine's.
//!
//! Every method that changes the group also writes to the records, so the
//! engine wraps it in a savepoint and drops the group when it fails.

use std::collections::BTreeSet;

use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::{
    CommitBuilder, Extension, ExtensionType, Extensions, GroupContext, GroupId, Initial,
    JoinBuilder, KeyPackage, LeafNodeIndex, LeafNodeParameters,
    MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig,
    MlsMessageBodyIn, OpenMlsProvider as _, ProcessMessageError, ProcessedMessageContent,
    ProcessedWelcome, Proposal, ProtocolMessage, RatchetTreeIn, RequiredCapabilitiesExtension,
    Sender, SenderRatchetConfiguration, StagedCommit, StagedWelcome, UnknownExtension,
    ValidationError, WireFormatPolicy,
};
use sotto_proto::{DeviceId, RoomId};
use zeroize::Zeroizing;

use crate::account::Account;
use crate::io::Timestamp;
use crate::leaf::{
    RULES, SUITE, bytes, capabilities, credential, leaf, message, read_credential, signer,
};
use crate::mls::{MlsError, Provider};
use crate::orders::{self, Order};
use crate::resend;
use crate::rules::{Change, Committer, Leaf, Member, Rules};

/// Epochs whose messages can still be read after a commit.
pub(crate) const PAST_EPOCHS: u64 = 2;

/// See the module.
pub(crate) struct Group {
    mls: MlsGroup,
    rules: Rules,
}

/// What an arriving message turned out to be.
pub(crate) enum Incoming {
    /// An application message of another device.
    Message {
        sender: Member,
        epoch: u64,
        content: Vec<u8>,
    },
    /// An application message of this device.
    Own,
    /// A commit, to be judged and then merged.
    Commit {
        staged: Box<StagedCommit>,
        change: Change,
    },
    /// Something that this version has no use for.
    Other,
}

/// Why an arriving message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// Of an epoch that this device has not reached.
    Future { epoch: u64 },
    /// Seen before, of an epoch whose secrets are gone or never were here, or
    /// damaged.
    Unreadable { epoch: u64 },
    /// Not a valid message of this group.
    Invalid(&'static str),
}

/// A commit that was made here and is not merged yet.
pub(crate) struct NewCommit {
    pub(crate) commit: Vec<u8>,
    /// Empty when nobody is added.
    pub(crate) welcome: Vec<u8>,
}

impl Group {
    /// Makes a group of this device alone.
    pub(crate) fn create(
        provider: &Provider,
        account: &Account,
        rules: Rules,
    ) -> Result<Self, MlsError> {
        let extensions = context_extensions(&rules)?;
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .wire_format_policy(WIRE_FORMAT)
            .max_past_epochs(PAST_EPOCHS as usize)
            .sender_ratchet_configuration(ratchet())
            .use_ratchet_tree_extension(false)
            .capabilities(capabilities())
            .with_group_context_extensions(extensions)
            .build();
        let id = GroupId::from_slice(rules.address.room.as_bytes());
        let mls = MlsGroup::new_with_group_id(
            provider,
            &signer(account),
            &config,
            id,
            credential(account),
        )
        .map_err(|_| MlsError("create"))?;
        Ok(Self { mls, rules })
    }

    /// The group of a room as it was last persisted.
    pub(crate) fn load(provider: &Provider, room: RoomId) -> Result<Option<Self>, MlsError> {
        let id = GroupId::from_slice(room.as_bytes());
        let mls = MlsGroup::load(provider.storage(), &id).map_err(|_| MlsError("load"))?;
        mls.map(Self::with_rules).transpose()
    }

    /// Joins by Welcome; the second part is who sent it.
    pub(crate) fn join(
        provider: &Provider,
        welcome: &[u8],
        tree: &[u8],
    ) -> Result<(Self, Member), MlsError> {
        let MlsMessageBodyIn::Welcome(welcome) = message(welcome)?.extract() else {
            return Err(MlsError("not a welcome"));
        };
        let tree = ratchet_tree(tree)?;
        let processed = ProcessedWelcome::new_from_welcome(provider, &join_config(), welcome)
            .map_err(|_| MlsError("welcome"))?;
        let staged = JoinBuilder::new(provider, processed)
            .with_ratchet_tree(tree)
            .skip_lifetime_validation()
            .build()
            .map_err(|_| MlsError("welcome tree"))?;
        let sender = welcome_sender(&staged)?;
        let mls = staged.into_group(provider).map_err(|_| MlsError("join"))?;
        Ok((Self::with_rules(mls)?, sender))
    }

    /// Joins by external commit; the commit is still to be published.
    pub(crate) fn join_externally(
        provider: &Provider,
        account: &Account,
        group_info: &[u8],
        tree: &[u8],
        authenticated_data: Vec<u8>,
    ) -> Result<(Self, Vec<u8>), MlsError> {
        let MlsMessageBodyIn::GroupInfo(group_info) = message(group_info)?.extract() else {
            return Err(MlsError("not a group info"));
        };
        let leaf = LeafNodeParameters::builder()
            .with_capabilities(capabilities())
            .build();
        let (mls, bundle) = MlsGroup::external_commit_builder()
            .with_ratchet_tree(ratchet_tree(tree)?)
            .with_config(join_config())
            .with_aad(authenticated_data)
            .skip_lifetime_validation()
            .build_group(provider, group_info, credential(account))
            .map_err(|_| MlsError("group info"))?
            .leaf_node_parameters(leaf)
            .load_psks(provider.storage())
            .map_err(|_| MlsError("psk"))?
            .build(provider.rand(), provider.crypto(), &signer(account), |_| {
                true
            })
            .map_err(|_| MlsError("external commit"))?
            .finalize(provider)
            .map_err(|_| MlsError("external commit"))?;
        let commit = bytes(bundle.into_commit())?;
        Ok((Self::with_rules(mls)?, commit))
    }

    /// Commits to adding these devices; nothing changes until the commit is merged.
    pub(crate) fn add(
        &mut self,
        provider: &Provider,
        account: &Account,
        key_packages: Vec<KeyPackage>,
        authenticated_data: Vec<u8>,
    ) -> Result<NewCommit, MlsError> {
        self.mls.set_aad(authenticated_data);
        self.commit(provider, account, |builder| {
            Ok(builder.propose_adds(key_packages))
        })
    }

    /// Commits to removing these devices, and to these orders being spent by
    /// that; nothing changes until the commit is merged. There is no Welcome.
    pub(crate) fn remove(
        &mut self,
        provider: &Provider,
        account: &Account,
        devices: &BTreeSet<DeviceId>,
        orders: &[Order],
    ) -> Result<NewCommit, MlsError> {
        let gone = |member: openmls::prelude::Member| {
            let device = read_credential(&member.credential)?.device;
            devices.contains(&device).then_some(member.index)
        };
        let leaves: Vec<LeafNodeIndex> = self.mls.members().filter_map(gone).collect();
        let mut rules = None;
        if !orders.is_empty() {
            rules = Some(context_extensions(&orders::spend(&self.rules, orders))?);
            self.mls.set_aad(orders::authenticated_data(orders));
        }
        self.commit(provider, account, |builder| {
            let builder = builder.propose_removals(leaves);
            match rules {
                Some(rules) => builder
                    .propose_group_context_extensions(rules)
                    .map_err(|_| MlsError("rules")),
                None => Ok(builder),
            }
        })
    }

    fn commit(
        &mut self,
        provider: &Provider,
        account: &Account,
        propose: impl for<'a> FnOnce(
            CommitBuilder<'a, Initial>,
        ) -> Result<CommitBuilder<'a, Initial>, MlsError>,
    ) -> Result<NewCommit, MlsError> {
        let bundle = propose(self.mls.commit_builder())?
            .load_psks(provider.storage())
            .map_err(|_| MlsError("psk"))?
            .build(provider.rand(), provider.crypto(), &signer(account), |_| {
                true
            })
            .map_err(|_| MlsError("commit"))?
            .stage_commit(provider)
            .map_err(|_| MlsError("commit"))?;
        let (commit, welcome, _) = bundle.into_messages();
        Ok(NewCommit {
            commit: bytes(commit)?,
            welcome: welcome.map(bytes).transpose()?.unwrap_or_default(),
        })
    }

    /// Encrypts an application message.
    pub(crate) fn encrypt(
        &mut self,
        provider: &Provider,
        account: &Account,
        content: &[u8],
    ) -> Result<Vec<u8>, MlsError> {
        let message = self
            .mls
            .create_message(provider, &signer(account), content)
            .map_err(|_| MlsError("encrypt"))?;
        bytes(message)
    }

    /// Reads a message of the room's stream. A commit is not merged yet.
    pub(crate) fn process(
        &mut self,
        provider: &Provider,
        payload: &[u8],
        stored_at: Timestamp,
    ) -> Result<Incoming, Rejected> {
        let message: ProtocolMessage = message(payload)
            .ok()
            .and_then(|message| message.try_into_protocol_message().ok())
            .ok_or(Rejected::Invalid("not an MLS message"))?;
        if *message.group_id() != *self.mls.group_id() {
            return Err(Rejected::Invalid("of another room"));
        }
        let epoch = message.epoch().as_u64();
        if epoch > self.mls.epoch().as_u64() {
            return Err(Rejected::Future { epoch });
        }
        let processed = self
            .mls
            .process_message(provider, message)
            .map_err(|error| rejected(error, epoch))?;
        let authenticated_data = processed.aad().to_vec();
        let sender = processed.sender().clone();
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(content) => {
                let sender = self.sender(&sender).ok_or(Rejected::Invalid("no sender"))?;
                Ok(Incoming::Message {
                    sender,
                    epoch,
                    content: content.into_bytes(),
                })
            }
            ProcessedMessageContent::OwnPrivateMessage => Ok(Incoming::Own),
            ProcessedMessageContent::StagedCommitMessage(staged) => {
                let committer = match &sender {
                    Sender::NewMemberCommit => Committer::Joining,
                    member => Committer::Member(
                        self.sender(member).ok_or(Rejected::Invalid("no sender"))?,
                    ),
                };
                let change = self.change(&staged, committer, authenticated_data, stored_at);
                Ok(Incoming::Commit { staged, change })
            }
            _ => Ok(Incoming::Other),
        }
    }

    /// Takes a judged commit in; `false` when it removed this device.
    pub(crate) fn merge(
        &mut self,
        provider: &Provider,
        staged: StagedCommit,
    ) -> Result<bool, MlsError> {
        let removed = staged.self_removed();
        self.mls
            .merge_staged_commit(provider, staged)
            .map_err(|_| MlsError("merge"))?;
        self.rules = read_rules(self.mls.extensions())?;
        Ok(!removed)
    }

    /// Takes the commit that was made here in.
    pub(crate) fn merge_own(&mut self, provider: &Provider) -> Result<(), MlsError> {
        self.mls
            .merge_pending_commit(provider)
            .map_err(|_| MlsError("merge"))?;
        self.rules = read_rules(self.mls.extensions())?;
        Ok(())
    }

    /// Forgets the commit that was made here.
    pub(crate) fn clear_own(&mut self, provider: &Provider) -> Result<(), MlsError> {
        self.mls
            .clear_pending_commit(provider.storage())
            .map_err(|_| MlsError("clear"))
    }

    /// Forgets the whole group.
    pub(crate) fn delete(mut self, provider: &Provider) -> Result<(), MlsError> {
        self.mls
            .delete(provider.storage())
            .map_err(|_| MlsError("delete"))
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.mls.epoch().as_u64()
    }

    /// Every leaf, in tree order.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.mls
            .members()
            .filter_map(|member| read_credential(&member.credential))
    }

    /// Every leaf with what it takes to verify it.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = Leaf> + '_ {
        self.mls.members().map(|member| Leaf {
            credential: member.credential.serialized_content().to_vec(),
            signature_key: member.signature_key,
        })
    }

    pub(crate) fn has(&self, device: DeviceId) -> bool {
        self.members().any(|member| member.device == device)
    }

    /// The public tree, for whoever joins at this epoch.
    pub(crate) fn ratchet_tree(&self) -> Result<Vec<u8>, MlsError> {
        self.mls
            .export_ratchet_tree()
            .tls_serialize_detached()
            .map_err(|_| MlsError("tree"))
    }

    /// The room's public key: what it takes, with the tree, to join by
    /// external commit at this epoch.
    pub(crate) fn group_info(
        &self,
        provider: &Provider,
        account: &Account,
    ) -> Result<Vec<u8>, MlsError> {
        let info = self
            .mls
            .export_group_info(provider.crypto(), &signer(account), false)
            .map_err(|_| MlsError("group info"))?;
        bytes(info)
    }

    /// The key under which this epoch's entries are said again.
    pub(crate) fn resend_key(&self, provider: &Provider) -> Result<Zeroizing<[u8; 32]>, MlsError> {
        let context = self.rules.address.room.as_bytes();
        let secret = self
            .mls
            .export_secret(provider.crypto(), resend::LABEL, context, 32)
            .map(Zeroizing::new)
            .map_err(|_| MlsError("export"))?;
        let key = secret.as_slice().try_into();
        key.map(Zeroizing::new).map_err(|_| MlsError("export"))
    }

    fn with_rules(mls: MlsGroup) -> Result<Self, MlsError> {
        let rules = read_rules(mls.extensions())?;
        if rules.address.room.as_bytes() != mls.group_id().as_slice() {
            return Err(MlsError("rules of another room"));
        }
        Ok(Self { mls, rules })
    }

    fn sender(&self, sender: &Sender) -> Option<Member> {
        match sender {
            Sender::Member(index) => read_credential(self.mls.member(*index)?),
            _ => None,
        }
    }

    fn change(
        &self,
        staged: &StagedCommit,
        committer: Committer,
        authenticated_data: Vec<u8>,
        stored_at: Timestamp,
    ) -> Change {
        let mut added: Vec<Leaf> = staged
            .add_proposals()
            .map(|add| leaf(add.add_proposal().key_package().leaf_node()))
            .collect();
        let mut other_proposals = staged.queued_proposals().any(|queued| {
            !matches!(
                queued.proposal(),
                Proposal::Add(_)
                    | Proposal::Remove(_)
                    | Proposal::ExternalInit(_)
                    | Proposal::GroupContextExtensions(_)
            )
        });
        let mut rules = None;
        for queued in staged.queued_proposals() {
            if let Proposal::GroupContextExtensions(proposal) = queued.proposal() {
                rules = read_rules(proposal.extensions()).ok().map(Box::new);
                // Nothing but the rules may change.
                let plain = rules.as_deref().map(context_extensions);
                other_proposals |=
                    !plain.is_some_and(|plain| plain.as_ref() == Ok(proposal.extensions()));
            }
        }
        match (&committer, staged.update_path_leaf_node()) {
            (Committer::Joining, Some(node)) => added.push(leaf(node)),
            (Committer::Member(member), Some(node)) => {
                // A committer renews its keys, not who it is.
                let renewed = read_credential(node.credential());
                other_proposals |= renewed.as_ref() != Some(member);
            }
            (Committer::Joining, None) => other_proposals = true,
            (Committer::Member(_), None) => {}
        }
        let removed = staged.remove_proposals().filter_map(|remove| {
            read_credential(self.mls.member(remove.remove_proposal().removed())?)
        });
        let removed: Vec<Member> = removed.collect();
        let staying = match rules {
            Some(_) => self.members().filter(|m| !removed.contains(m)).collect(),
            None => Vec::new(),
        };
        Change {
            committer,
            added,
            removed,
            rules,
            staying,
            other_proposals,
            authenticated_data,
            stored_at,
        }
    }
}

/// The rules, and that every member must understand them: without the second
/// openmls takes no commit that changes the first.
fn context_extensions(rules: &Rules) -> Result<Extensions<GroupContext>, MlsError> {
    let required = RequiredCapabilitiesExtension::new(&[ExtensionType::Unknown(RULES)], &[], &[]);
    Extensions::from_vec(vec![
        Extension::RequiredCapabilities(required),
        Extension::Unknown(RULES, UnknownExtension(rules.encode())),
    ])
    .map_err(|_| MlsError("rules"))
}

fn read_rules(extensions: &Extensions<GroupContext>) -> Result<Rules, MlsError> {
    let extension = extensions.unknown(RULES).ok_or(MlsError("no rules"))?;
    Rules::decode(&extension.0).ok_or(MlsError("rules"))
}

const WIRE_FORMAT: WireFormatPolicy = MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY;

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(WIRE_FORMAT)
        .max_past_epochs(PAST_EPOCHS as usize)
        .sender_ratchet_configuration(ratchet())
        .use_ratchet_tree_extension(false)
        .build()
}

/// A sender's messages come in stream order; a few may come late, and many may
/// be missing, which is then asked for.
fn ratchet() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(5, 10_000)
}

fn welcome_sender(staged: &StagedWelcome) -> Result<Member, MlsError> {
    let leaf = staged.welcome_sender().map_err(|_| MlsError("no sender"))?;
    read_credential(leaf.credential()).ok_or(MlsError("no sender"))
}

fn ratchet_tree(tree: &[u8]) -> Result<RatchetTreeIn, MlsError> {
    RatchetTreeIn::tls_deserialize_exact(tree).map_err(|_| MlsError("not a tree"))
}

/// openmls does not let its callers tell a duplicate from a damaged message.
fn rejected<E>(error: ProcessMessageError<E>, epoch: u64) -> Rejected {
    match error {
        ProcessMessageError::ValidationError(
            ValidationError::WrongEpoch | ValidationError::UnableToDecrypt(_),
        ) => Rejected::Unreadable { epoch },
        _ => Rejected::Invalid("it does not verify"),
    }
}
