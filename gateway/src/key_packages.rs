//! Which key package of a device is handed out next. Pure: the caller stores
//! the record by compare-and-set before anything is handed out.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use sotto_proto::{limits, wire};

use crate::records::{KeyPackagesRecord, VERSION};
use crate::refusal::Refusal;

/// A key package, in bytes; one of a post-quantum suite takes about 3,000.
pub const KEY_PACKAGE: usize = 8 * 1024;
/// How many that were handed out are remembered.
const SPENT: usize = 256;
const SPENT_HASH: usize = 16;

impl KeyPackagesRecord {
    /// Takes in what a device uploads. What is here already, or was handed out
    /// before, is passed over; the newest stay.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] when the upload breaks a limit.
    pub fn add(&mut self, upload: &wire::KeyPackagesUpload) -> Result<(), Refusal> {
        let wire::KeyPackagesUpload {
            key_packages,
            last_resort,
        } = upload;
        if key_packages.len() > limits::KEY_PACKAGES as usize {
            return Err(Refusal::malformed("number of key packages"));
        }
        let fits = |package: &Bytes| (1..=KEY_PACKAGE).contains(&package.len());
        if !key_packages.iter().all(fits) || last_resort.len() > KEY_PACKAGE {
            return Err(Refusal::malformed("length of a key package"));
        }
        self.version = VERSION;
        for package in key_packages {
            let known = self.unused.contains(package) || self.spent.contains(&hash(package));
            if !known {
                self.unused.push(package.clone());
            }
        }
        let surplus = self
            .unused
            .len()
            .saturating_sub(limits::KEY_PACKAGES as usize);
        self.unused.drain(..surplus);
        if !last_resort.is_empty() {
            self.last_resort = last_resort.clone();
        }
        Ok(())
    }

    /// Takes one out, and whether the record is changed by that; the last
    /// resort stays.
    pub fn take(&mut self) -> Option<(Bytes, bool)> {
        if self.unused.is_empty() {
            let last_resort = self.last_resort.clone();
            return (!last_resort.is_empty()).then_some((last_resort, false));
        }
        let package = self.unused.remove(0);
        self.spent.push(hash(&package));
        let surplus = self.spent.len().saturating_sub(SPENT);
        self.spent.drain(..surplus);
        Some((package, true))
    }

    /// How many are left besides the last resort.
    pub fn count(&self) -> u32 {
        u32::try_from(self.unused.len()).unwrap_or(u32::MAX)
    }
}

fn hash(package: &[u8]) -> Bytes {
    let hash = Sha256::digest(package);
    Bytes::copy_from_slice(hash.get(..SPENT_HASH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn upload(packages: &[u8], last_resort: &'static [u8]) -> wire::KeyPackagesUpload {
        wire::KeyPackagesUpload {
            key_packages: packages.iter().map(|&n| vec![n].into()).collect(),
            last_resort: last_resort.into(),
        }
    }

    #[test]
    fn each_is_handed_out_once_then_the_last_resort() {
        let mut record = KeyPackagesRecord::default();
        assert_eq!(record.take(), None);
        record.add(&upload(&[1, 2], b"last")).unwrap();
        let taken: Vec<_> = (0..4).map(|_| record.take().unwrap()).collect();
        let last = Bytes::from_static(b"last");
        assert_eq!(
            taken,
            [
                (vec![1].into(), true),
                (vec![2].into(), true),
                (last.clone(), false),
                (last, false)
            ]
        );
    }

    #[test]
    fn an_upload_without_a_last_resort_keeps_the_old_one() {
        let mut record = KeyPackagesRecord::default();
        record.add(&upload(&[], b"last")).unwrap();
        record.add(&upload(&[1], b"")).unwrap();
        assert_eq!(record.last_resort, "last");
    }

    #[test]
    fn limits_hold() {
        let mut record = KeyPackagesRecord::default();
        let many: Vec<u8> = (0..=20).collect();
        assert!(record.add(&upload(&many, b"")).is_err());
        for key_package in [Bytes::new(), vec![0; KEY_PACKAGE + 1].into()] {
            let upload = wire::KeyPackagesUpload {
                key_packages: vec![key_package],
                last_resort: Bytes::new(),
            };
            assert!(record.add(&upload).is_err());
        }
        record.add(&upload(&many[..20], b"")).unwrap();
        record.add(&upload(&[100, 101], b"")).unwrap();
        assert_eq!(record.count(), limits::KEY_PACKAGES);
        assert_eq!(record.take().unwrap().0, vec![2]);
    }

    proptest! {
        #[test]
        fn whatever_is_repeated_nothing_is_handed_out_twice(
            steps in proptest::collection::vec(proptest::option::of(0u8..40), 0..200)
        ) {
            let mut record = KeyPackagesRecord::default();
            let mut taken = std::collections::BTreeSet::new();
            for step in steps {
                match step {
                    Some(package) => record.add(&upload(&[package], b"")).unwrap(),
                    None => {
                        if let Some((package, _)) = record.take() {
                            prop_assert!(taken.insert(package), "handed out twice");
                        }
                    }
                }
            }
        }
    }
}
