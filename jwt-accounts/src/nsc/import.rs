//! Reading and checking a store.

use std::collections::BTreeSet;
use std::path::Path;

use nkeys::KeyPair;
use zeroize::Zeroizing;

use super::claims::{NscAccountClaims, NscUserClaims, account_signed, operator_signed};
use super::folder::{Folder, Secrecy};
use super::{
    ACCOUNTS, INFO, INFO_KIND, INFO_VERSION, Info, NscAccount, NscError, NscSeeds, NscStore,
    NscToken, NscUser, STORES, USERS, account_dir, creds_file, file_name, jwt_file, key_file,
    operator_dir,
};
use crate::claims::{Claims, Kind, Operator, Verified};
use crate::credentials::{CREDENTIALS_MAX, Credentials};

/// Longest `.nsc` file, JWT and seed file that are read, in bytes.
const INFO_MAX: usize = 4_096;
const JWT_MAX: usize = 1024 * 1024;
const KEY_MAX: usize = 256;

/// Reads an operator of the store in `dir`, the folder with `stores` and `keys`
/// in it: the one of that name, or the only one. Checks every JWT's signature
/// and that its signer may sign it, and that each seed is the key's that it is
/// filed under; not whether a JWT has expired. Seeds that are not there are
/// just missing.
///
/// # Errors
/// [`NscError`]: what does not fit, and where.
pub fn import(dir: &Path, operator: Option<&str>) -> Result<NscStore, NscError> {
    let mut import = Import {
        folder: Folder::open(dir)?,
        ids: BTreeSet::new(),
        seeds: NscSeeds::default(),
    };
    let name = import.operator_name(operator)?;
    let (operator, claims) = import.operator(&name)?;
    let mut accounts = Vec::new();
    for account in import.folder.names(&operator_dir(&name).join(ACCOUNTS))? {
        if !account.starts_with('.') {
            accounts.push(import.account(&name, &claims, &account)?);
        }
    }
    Ok(NscStore {
        operator,
        claims,
        accounts,
        seeds: import.seeds,
    })
}

struct Import {
    folder: Folder,
    /// Public keys that a JWT was read of.
    ids: BTreeSet<String>,
    seeds: NscSeeds,
}

impl Import {
    fn operator_name(&mut self, wanted: Option<&str>) -> Result<String, NscError> {
        let mut names = self.folder.names(Path::new(STORES))?;
        names
            .retain(|name| file_name(name).is_some() && wanted.is_none_or(|wanted| wanted == name));
        match names.as_slice() {
            [] => Err(NscError::NoOperator(self.folder.full(Path::new(STORES)))),
            [name] => Ok(name.clone()),
            several => Err(NscError::WhichOperator(several.join(", "))),
        }
    }

    fn operator(&mut self, name: &str) -> Result<(NscToken, Verified<Operator>), NscError> {
        let path = operator_dir(name).join(INFO);
        let info = self.text(&path, INFO_MAX, Secrecy::Public)?;
        let info: Info = serde_json::from_str(&info)
            .map_err(|_| self.unfit(&path, "this is not what nsc writes there"))?;
        if info.managed {
            return Err(NscError::Managed(name.to_owned()));
        }
        if info.kind != INFO_KIND || info.version != INFO_VERSION || info.name != name {
            return Err(self.unfit(&path, "it is of another operator or version of nsc"));
        }
        let path = operator_dir(name).join(jwt_file(name));
        let (token, claims) = self.token::<Operator>(&path, name)?;
        if claims.issuer != token.id {
            return Err(self.unfit(&path, "the operator itself did not sign this JWT"));
        }
        let keys = claims.claims.nats.signing_keys.iter();
        self.take_seeds(keys.map(String::as_str).chain([token.id.as_str()]))?;
        Ok((token, claims))
    }

    fn account(
        &mut self,
        operator: &str,
        by: &Verified<Operator>,
        name: &str,
    ) -> Result<NscAccount, NscError> {
        let dir = account_dir(operator, name);
        let path = dir.join(jwt_file(name));
        let (token, claims) = self.token::<NscAccountClaims>(&path, name)?;
        if !operator_signed(by, &claims) {
            return Err(self.unfit(&path, "no key of the operator signed this JWT"));
        }
        let keys = claims.claims.nats.signing_keys();
        self.take_seeds(keys.chain([token.id.as_str()]))?;
        let mut users = Vec::new();
        for file in self.folder.names(&dir.join(USERS))? {
            if let Some(user) = file.strip_suffix(".jwt") {
                users.push(self.user(operator, name, &claims, user)?);
            }
        }
        Ok(NscAccount { token, users })
    }

    fn user(
        &mut self,
        operator: &str,
        account: &str,
        by: &Verified<NscAccountClaims>,
        name: &str,
    ) -> Result<NscUser, NscError> {
        let path = account_dir(operator, account)
            .join(USERS)
            .join(jwt_file(name));
        let (token, claims) = self.token::<NscUserClaims>(&path, name)?;
        if !account_signed(by, &claims) {
            return Err(self.unfit(&path, "no key of the account signed this JWT"));
        }
        self.take_seeds([token.id.as_str()])?;
        let credentials = self.credentials(&creds_file(operator, account, name), &token.id, by)?;
        Ok(NscUser { token, credentials })
    }

    fn credentials(
        &mut self,
        path: &Path,
        user: &str,
        by: &Verified<NscAccountClaims>,
    ) -> Result<Option<Credentials>, NscError> {
        let file = self
            .folder
            .read(path, CREDENTIALS_MAX, Secrecy::OwnerOnly)?;
        let Some(file) = file else { return Ok(None) };
        let credentials = Credentials::parse(&file).map_err(|error| NscError::Credentials {
            path: self.folder.full(path),
            error,
        })?;
        match Claims::<NscUserClaims>::verify(credentials.jwt()) {
            Ok(claims) if claims.claims.subject == user && account_signed(by, &claims) => {
                Ok(Some(credentials))
            }
            _ => Err(self.unfit(path, "it is not of the user whose name it has")),
        }
    }

    /// A JWT that must be there, of the name of its file, about a new key.
    fn token<K: Kind>(
        &mut self,
        path: &Path,
        name: &str,
    ) -> Result<(NscToken, Verified<K>), NscError> {
        if file_name(name).is_none() {
            return Err(self.unfit(path, "nsc makes no file of such a name"));
        }
        let text = self.text(path, JWT_MAX, Secrecy::Public)?;
        let jwt = text.trim_end();
        let verified = Claims::<K>::verify(jwt)
            .map_err(|_| self.unfit(path, "this is no JWT of the kind expected, or was changed"))?;
        if verified.claims.name.trim() != name {
            return Err(self.unfit(path, "the JWT has another name than its file"));
        }
        if !self.ids.insert(verified.claims.subject.clone()) {
            return Err(self.unfit(path, "another JWT in the store is about the same key"));
        }
        let token = NscToken {
            name: name.to_owned(),
            id: verified.claims.subject.clone(),
            jwt: jwt.to_owned(),
        };
        Ok((token, verified))
    }

    /// Reads those seeds of these keys that are there.
    fn take_seeds<'a>(&mut self, keys: impl IntoIterator<Item = &'a str>) -> Result<(), NscError> {
        for key in keys {
            let public = KeyPair::from_public_key(key).ok();
            let path = public.and_then(|_| key_file(key));
            let Some(path) = path else { continue };
            let text = self.folder.read(&path, KEY_MAX, Secrecy::OwnerOnly)?;
            let Some(text) = text else { continue };
            let seed = text.trim();
            // nsc takes a file with just the public key, too.
            if seed == key {
                continue;
            }
            match KeyPair::from_seed(seed) {
                Ok(pair) if pair.public_key() == key => {
                    let seed = Zeroizing::new(seed.to_owned());
                    self.seeds.0.insert(key.to_owned(), seed);
                }
                _ => return Err(self.unfit(&path, "it has not the seed of its name's key")),
            }
        }
        Ok(())
    }

    fn text(
        &mut self,
        path: &Path,
        max: usize,
        secrecy: Secrecy,
    ) -> Result<Zeroizing<String>, NscError> {
        let text = self.folder.read(path, max, secrecy)?;
        text.ok_or_else(|| NscError::Io {
            path: self.folder.full(path),
            error: std::io::ErrorKind::NotFound.into(),
        })
    }

    fn unfit(&self, path: &Path, problem: &'static str) -> NscError {
        NscError::Unfit {
            path: self.folder.full(path),
            problem,
        }
    }
}
