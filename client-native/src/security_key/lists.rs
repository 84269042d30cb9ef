//! Lists of credentials in portions that a key takes: how many it takes, how
//! long ids may be, and how long a message, it says itself.

use webauthn_authenticator_rs::ctap2::GetInfoResponse;
use webauthn_authenticator_rs::prelude::RequestChallengeResponse;
use webauthn_rs_proto::{
    AllowCredentials, PublicKeyCredentialCreationOptions, PublicKeyCredentialDescriptor,
    PublicKeyCredentialRequestOptions, UserVerificationPolicy,
};

/// Longest message of a key that says nothing of it, in bytes.
const MESSAGE: usize = 1_024;
/// What a question takes beside its list and the names in it, and an entry
/// beside its id.
const QUESTION: usize = 360;
const ENTRY: usize = 32;

/// The credentials that may sign, in portions.
pub(super) fn of_allowed(
    asked: &PublicKeyCredentialRequestOptions,
    info: &GetInfoResponse,
) -> Vec<Vec<AllowCredentials>> {
    let list = asked.allow_credentials.iter();
    let list = list.map(|one| AllowCredentials {
        transports: None,
        ..one.clone()
    });
    portions(list.collect(), |one| &one.id, asked.rp_id.len(), info)
}

/// The credentials of which a key must have none, in portions.
pub(super) fn of_excluded(
    asked: &PublicKeyCredentialCreationOptions,
    info: &GetInfoResponse,
) -> Vec<Vec<PublicKeyCredentialDescriptor>> {
    let list = asked.exclude_credentials.iter().flatten();
    let list = list.map(|one| PublicKeyCredentialDescriptor {
        transports: None,
        ..one.clone()
    });
    let (party, user) = (&asked.rp, &asked.user);
    let names = [&party.id, &party.name, &user.name, &user.display_name];
    let names = names.iter().map(|name| name.len()).sum();
    portions(list.collect(), |one| &one.id, names, info)
}

/// Asks whether the key has one of these: their signature goes nowhere.
pub(super) fn question(
    asked: &PublicKeyCredentialCreationOptions,
    portion: Vec<PublicKeyCredentialDescriptor>,
) -> RequestChallengeResponse {
    let allow_credentials = portion.into_iter().map(|one| AllowCredentials {
        type_: one.type_,
        id: one.id,
        transports: None,
    });
    RequestChallengeResponse {
        public_key: PublicKeyCredentialRequestOptions {
            challenge: Vec::new(),
            timeout: asked.timeout,
            rp_id: asked.rp.id.clone(),
            allow_credentials: allow_credentials.collect(),
            user_verification: UserVerificationPolicy::Required,
            hints: None,
            extensions: None,
        },
        mediation: None,
    }
}

fn portions<T>(
    list: Vec<T>,
    id: impl Fn(&T) -> &Vec<u8>,
    names: usize,
    info: &GetInfoResponse,
) -> Vec<Vec<T>> {
    let number = |said: Option<u32>| said.and_then(|said| usize::try_from(said).ok());
    let most = number(info.max_cred_count_in_list).unwrap_or(usize::MAX);
    let longest = number(info.max_cred_id_len).unwrap_or(usize::MAX);
    let message = number(info.max_msg_size).unwrap_or(MESSAGE);
    let room = message.saturating_sub(QUESTION.saturating_add(names));
    let (mut portions, mut portion, mut taken) = (Vec::new(), Vec::new(), 0usize);
    for one in list {
        let length = id(&one).len();
        // Not one of this key's.
        if length > longest {
            continue;
        }
        let takes = ENTRY.saturating_add(length);
        let full = portion.len() >= most || taken.saturating_add(takes) > room;
        if full && !portion.is_empty() {
            portions.push(std::mem::take(&mut portion));
            taken = 0;
        }
        taken = taken.saturating_add(takes);
        portion.push(one);
    }
    if !portion.is_empty() {
        portions.push(portion);
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(ids: &[usize], info: &GetInfoResponse) -> Vec<Vec<usize>> {
        let ids = ids.iter().map(|&length| vec![7; length]).collect();
        let portions = portions(ids, |id| id, 40, info).into_iter();
        portions
            .map(|portion| portion.iter().map(Vec::len).collect())
            .collect()
    }

    #[test]
    fn a_portion_is_what_the_key_takes() {
        let mut info = GetInfoResponse::default();
        assert_eq!(lengths(&[], &info), [[0usize; 0]; 0]);
        assert_eq!(lengths(&[64, 64], &info), [[64, 64]]);
        info.max_cred_count_in_list = Some(2);
        assert_eq!(lengths(&[1, 2, 3], &info), [vec![1, 2], vec![3]]);
        info.max_cred_id_len = Some(2);
        assert_eq!(lengths(&[1, 3, 2], &info), [[1, 2]]);
        let mut info = GetInfoResponse {
            max_msg_size: Some(700),
            ..GetInfoResponse::default()
        };
        assert_eq!(
            lengths(&[100, 100, 100], &info),
            [vec![100, 100], vec![100]]
        );
        // Whatever a key says, each is asked for once.
        info.max_msg_size = Some(0);
        info.max_cred_count_in_list = Some(0);
        assert_eq!(lengths(&[5, 6], &info), [[5], [6]]);
    }
}
