//! openmls' storage trait over the write set. Values are found under a label
//! and openmls' own key; those of a group are filed under its room.

use openmls_traits::storage::{CURRENT_VERSION as V, StorageProvider, traits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sotto_proto::RoomId;

use crate::records::{Key, Records, RecordsError, encode};
use crate::wiped::Wiped;

/// See the module.
pub(crate) struct Storage(pub(crate) Records);

/// What kind of value a key leads to; part of the stored key, never reused.
#[derive(Clone, Copy)]
enum Label {
    JoinConfig = 1,
    OwnLeafNodes = 2,
    ProposalRefs = 3,
    Proposal = 4,
    Tree = 5,
    InterimTranscriptHash = 6,
    Context = 7,
    ConfirmationTag = 8,
    GroupState = 9,
    MessageSecrets = 10,
    ResumptionPsks = 11,
    OwnLeafIndex = 12,
    EpochSecrets = 13,
    SignatureKeyPair = 14,
    EncryptionKeyPair = 15,
    EpochKeyPairs = 16,
    KeyPackage = 17,
    Psk = 18,
}

/// The key of a group's value; `more` tells several of one label apart.
fn of_group(label: Label, group_id: &impl Serialize, more: &[u8]) -> Key {
    let group = encode(group_id);
    // A group id is its room's 16 bytes, with MessagePack's head before them.
    let tail = group.len().checked_sub(16).and_then(|at| group.get(at..));
    let room = tail.and_then(|tail| RoomId::try_from(tail).ok());
    Key::Mls(room, [&[label as u8][..], &group, more].concat())
}

/// The key of a value that belongs to the device.
fn of_device(label: Label, key: &impl Serialize) -> Key {
    Key::Mls(None, [&[label as u8][..], &encode(key)].concat())
}

impl Storage {
    fn write(&self, key: Key, value: &impl Serialize) -> Result<(), RecordsError> {
        self.0.put(key, value);
        Ok(())
    }

    fn read<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, RecordsError> {
        self.0.get(key)
    }

    fn remove(&self, key: Key) -> Result<(), RecordsError> {
        self.0.delete(key);
        Ok(())
    }

    /// A list of values that are already encoded: openmls' lists hold one type
    /// in one call and are read as another in the next.
    fn list(&self, key: &Key) -> Result<Vec<Vec<u8>>, RecordsError> {
        Ok(self.read(key)?.unwrap_or_default())
    }
}

/// Writes, reads and deletes one value of a group.
macro_rules! group_value {
    ($label:ident: $trait:ident, $write:ident, $read:ident, $delete:ident) => {
        group_value!($label: $trait, $write, $read);

        fn $delete<G: traits::GroupId<V>>(&self, group_id: &G) -> Result<(), RecordsError> {
            self.remove(of_group(Label::$label, group_id, b""))
        }
    };
    ($label:ident: $trait:ident, $write:ident, $read:ident) => {
        fn $write<G: traits::GroupId<V>, T: traits::$trait<V>>(
            &self,
            group_id: &G,
            value: &T,
        ) -> Result<(), RecordsError> {
            self.write(of_group(Label::$label, group_id, b""), value)
        }

        fn $read<G: traits::GroupId<V>, T: traits::$trait<V>>(
            &self,
            group_id: &G,
        ) -> Result<Option<T>, RecordsError> {
            self.read(&of_group(Label::$label, group_id, b""))
        }
    };
}

/// Writes, reads and deletes one value of the device.
macro_rules! device_value {
    ($label:ident: $key:ident -> $trait:ident, $write:ident, $delete:ident) => {
        fn $write<K: traits::$key<V>, T: traits::$trait<V>>(
            &self,
            key: &K,
            value: &T,
        ) -> Result<(), RecordsError> {
            self.write(of_device(Label::$label, key), value)
        }

        fn $delete<K: traits::$key<V>>(&self, key: &K) -> Result<(), RecordsError> {
            self.remove(of_device(Label::$label, key))
        }
    };
}

impl StorageProvider<V> for Storage {
    type Error = RecordsError;

    group_value!(JoinConfig: MlsGroupJoinConfig, write_mls_join_config, mls_group_join_config, delete_group_config);
    group_value!(Tree: TreeSync, write_tree, tree, delete_tree);
    group_value!(
        InterimTranscriptHash: InterimTranscriptHash,
        write_interim_transcript_hash,
        interim_transcript_hash,
        delete_interim_transcript_hash
    );
    group_value!(Context: GroupContext, write_context, group_context, delete_context);
    group_value!(ConfirmationTag: ConfirmationTag, write_confirmation_tag, confirmation_tag, delete_confirmation_tag);
    group_value!(MessageSecrets: MessageSecrets, write_message_secrets, message_secrets, delete_message_secrets);
    group_value!(
        ResumptionPsks: ResumptionPskStore,
        write_resumption_psk_store,
        resumption_psk_store,
        delete_all_resumption_psk_secrets
    );
    group_value!(OwnLeafIndex: LeafNodeIndex, write_own_leaf_index, own_leaf_index, delete_own_leaf_index);
    group_value!(
        EpochSecrets: GroupEpochSecrets,
        write_group_epoch_secrets,
        group_epoch_secrets,
        delete_group_epoch_secrets
    );

    device_value!(
        SignatureKeyPair: SignaturePublicKey -> SignatureKeyPair,
        write_signature_key_pair,
        delete_signature_key_pair
    );
    device_value!(
        EncryptionKeyPair: EncryptionKey -> HpkeKeyPair,
        write_encryption_key_pair,
        delete_encryption_key_pair
    );
    device_value!(KeyPackage: HashReference -> KeyPackage, write_key_package, delete_key_package);
    device_value!(Psk: PskId -> PskBundle, write_psk, delete_psk);

    // The getters' parameters stand in another order in each.

    fn signature_key_pair<K: traits::SignaturePublicKey<V>, T: traits::SignatureKeyPair<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, RecordsError> {
        self.read(&of_device(Label::SignatureKeyPair, key))
    }

    fn encryption_key_pair<T: traits::HpkeKeyPair<V>, K: traits::EncryptionKey<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, RecordsError> {
        self.read(&of_device(Label::EncryptionKeyPair, key))
    }

    fn key_package<K: traits::HashReference<V>, T: traits::KeyPackage<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, RecordsError> {
        self.read(&of_device(Label::KeyPackage, key))
    }

    fn psk<T: traits::PskBundle<V>, K: traits::PskId<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, RecordsError> {
        self.read(&of_device(Label::Psk, key))
    }

    fn write_group_state<T: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group_id: &G,
        state: &T,
    ) -> Result<(), RecordsError> {
        self.write(of_group(Label::GroupState, group_id, b""), state)
    }

    fn group_state<T: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group_id: &G,
    ) -> Result<Option<T>, RecordsError> {
        self.read(&of_group(Label::GroupState, group_id, b""))
    }

    fn delete_group_state<G: traits::GroupId<V>>(&self, group_id: &G) -> Result<(), RecordsError> {
        self.remove(of_group(Label::GroupState, group_id, b""))
    }

    fn append_own_leaf_node<G: traits::GroupId<V>, T: traits::LeafNode<V>>(
        &self,
        group_id: &G,
        leaf_node: &T,
    ) -> Result<(), RecordsError> {
        let key = of_group(Label::OwnLeafNodes, group_id, b"");
        let mut nodes = self.list(&key)?;
        nodes.push(encode(leaf_node).to_vec());
        self.write(key, &nodes)
    }

    fn own_leaf_nodes<G: traits::GroupId<V>, T: traits::LeafNode<V>>(
        &self,
        group_id: &G,
    ) -> Result<Vec<T>, RecordsError> {
        let nodes = self.list(&of_group(Label::OwnLeafNodes, group_id, b""))?;
        nodes
            .iter()
            .map(|node| crate::records::decode(node))
            .collect()
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<V>>(
        &self,
        group_id: &G,
    ) -> Result<(), RecordsError> {
        self.remove(of_group(Label::OwnLeafNodes, group_id, b""))
    }

    fn queue_proposal<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        T: traits::QueuedProposal<V>,
    >(
        &self,
        group_id: &G,
        reference: &R,
        proposal: &T,
    ) -> Result<(), RecordsError> {
        let reference = encode(reference);
        self.write(of_group(Label::Proposal, group_id, &reference), proposal)?;
        let key = of_group(Label::ProposalRefs, group_id, b"");
        let mut references = self.list(&key)?;
        references.push(reference.to_vec());
        self.write(key, &references)
    }

    fn queued_proposal_refs<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group_id: &G,
    ) -> Result<Vec<R>, RecordsError> {
        let references = self.list(&of_group(Label::ProposalRefs, group_id, b""))?;
        references
            .iter()
            .map(|reference| crate::records::decode(reference))
            .collect()
    }

    fn queued_proposals<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        T: traits::QueuedProposal<V>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Vec<(R, T)>, RecordsError> {
        let references = self.list(&of_group(Label::ProposalRefs, group_id, b""))?;
        let pair = |reference: &Vec<u8>| {
            let proposal = self.read(&of_group(Label::Proposal, group_id, reference))?;
            Ok((
                crate::records::decode(reference)?,
                proposal.ok_or_else(RecordsError::damaged)?,
            ))
        };
        references.iter().map(pair).collect()
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group_id: &G,
        reference: &R,
    ) -> Result<(), RecordsError> {
        let reference = encode(reference);
        let key = of_group(Label::ProposalRefs, group_id, b"");
        let mut references = self.list(&key)?;
        references.retain(|kept| **kept != *reference);
        self.write(key, &references)?;
        self.remove(of_group(Label::Proposal, group_id, &reference))
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group_id: &G,
    ) -> Result<(), RecordsError> {
        let key = of_group(Label::ProposalRefs, group_id, b"");
        for reference in self.list(&key)? {
            self.remove(of_group(Label::Proposal, group_id, &reference))?;
        }
        self.remove(key)
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        T: traits::HpkeKeyPair<V>,
    >(
        &self,
        group_id: &G,
        epoch: &E,
        leaf_index: u32,
        key_pairs: &[T],
    ) -> Result<(), RecordsError> {
        let key_pairs: Vec<Wiped> = key_pairs.iter().map(encode).collect();
        self.write(epoch_key_pairs(group_id, epoch, leaf_index), &key_pairs)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        T: traits::HpkeKeyPair<V>,
    >(
        &self,
        group_id: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Result<Vec<T>, RecordsError> {
        let key_pairs = self.list(&epoch_key_pairs(group_id, epoch, leaf_index))?;
        key_pairs
            .iter()
            .map(|pair| crate::records::decode(pair))
            .collect()
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<V>, E: traits::EpochKey<V>>(
        &self,
        group_id: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Result<(), RecordsError> {
        self.remove(epoch_key_pairs(group_id, epoch, leaf_index))
    }
}

fn epoch_key_pairs(group_id: &impl Serialize, epoch: &impl Serialize, leaf_index: u32) -> Key {
    let more = [&leaf_index.to_be_bytes()[..], &encode(epoch)].concat();
    of_group(Label::EpochKeyPairs, group_id, &more)
}
