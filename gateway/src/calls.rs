//! The calls of the API, one file per subject.

mod accounts;
mod ceremonies;
mod devices;
mod directory;
mod factors;
mod group_infos;
mod key_packages;
mod linking;
mod login;
mod me;
mod proving;
mod rooms;
mod server;
mod signup;
mod sms;

use std::sync::Arc;

use axum::Router;
use sotto_proto::wire;

use crate::gateway::Gateway;
use crate::http::route;

/// Adds every call of [`sotto_proto::api`].
pub fn routes(router: Router<Arc<Gateway>>) -> Router<Arc<Gateway>> {
    let router = route::<wire::ServerInfoRequest>(router);
    let router = route::<wire::AccountsRequest>(router);
    let router = route::<wire::SignupStart>(router);
    let router = route::<wire::SignupFinish>(router);
    let router = route::<wire::LoginStart>(router);
    let router = route::<wire::LoginFinish>(router);
    let router = route::<wire::SessionOpen>(router);
    let router = route::<wire::DeviceEnrol>(router);
    let router = route::<wire::DeviceRevoke>(router);
    let router = route::<wire::InviteCreate>(router);
    let router = route::<wire::MeRequest>(router);
    let router = route::<wire::JwtRequest>(router);
    let router = route::<wire::UserRequest>(router);
    let router = route::<wire::KeyPackagesUpload>(router);
    let router = route::<wire::KeyPackagesClaim>(router);
    let router = route::<wire::RoomCreate>(router);
    let router = route::<wire::RoomGrant>(router);
    let router = route::<wire::RoomJoin>(router);
    let router = route::<wire::RoomsCheck>(router);
    let router = route::<wire::GroupInfoPut>(router);
    let router = route::<wire::TotpEnrol>(router);
    let router = route::<wire::TotpProve>(router);
    let router = route::<wire::SmsEnrol>(router);
    let router = route::<wire::SmsSend>(router);
    let router = route::<wire::SmsProve>(router);
    let router = route::<wire::PasswordProveStart>(router);
    let router = route::<wire::PasswordProve>(router);
    let router = route::<wire::CeremonyBegin>(router);
    let router = route::<wire::CeremonyFinish>(router);
    let router = route::<wire::CeremonyWait>(router);
    let router = route::<wire::FactorRemove>(router);
    let router = route::<wire::FactorsRequest>(router);
    let router = route::<wire::DirectoryChange>(router);
    let router = route::<wire::DirectoryRead>(router);
    let router = route::<wire::LinkPut>(router);
    route::<wire::LinkGet>(router)
}
