//! The gateway's HTTP calls: which request goes to which path and what answers.
//! Client and gateway both take it from here.

use prost::Message;

use crate::wire;

/// Media type of every request and answer body.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// A request of the gateway's API.
pub trait Call: Message + Default {
    /// What a successful call answers.
    type Answer: Message + Default;
    /// `POST` goes here.
    const PATH: &'static str;
    /// Whether the call needs `Authorization: Bearer <session token>`.
    const SESSION: bool;
}

macro_rules! calls {
    ($($request:ident -> $answer:ident, $path:literal, $session:literal;)*) => {
        $(impl Call for wire::$request {
            type Answer = wire::$answer;
            const PATH: &'static str = $path;
            const SESSION: bool = $session;
        })*

        /// Every path of the API, with whether it needs a session.
        pub const PATHS: &[(&str, bool)] = &[$(($path, $session)),*];
    };
}

calls! {
    ServerInfoRequest -> ServerInfo, "/v1/server", false;
    SignupStart -> SignupStarted, "/v1/signup/start", false;
    SignupFinish -> Session, "/v1/signup/finish", false;
    LoginStart -> LoginStarted, "/v1/login/start", false;
    LoginFinish -> LoginFinished, "/v1/login/finish", false;
    SessionOpen -> Session, "/v1/session", false;
    DeviceEnrol -> Session, "/v1/devices", true;
    DeviceRevoke -> DeviceGone, "/v1/devices/revoke", true;
    InviteCreate -> InviteCreated, "/v1/invites", true;
    MeRequest -> Me, "/v1/me", true;
    JwtRequest -> Jwt, "/v1/jwt", true;
    UserRequest -> User, "/v1/users", true;
    KeyPackagesUpload -> KeyPackagesUploaded, "/v1/key-packages/upload", true;
    KeyPackagesClaim -> KeyPackagesClaimed, "/v1/key-packages/claim", true;
    RoomCreate -> RoomCreated, "/v1/rooms/create", true;
    RoomGrant -> RoomGranted, "/v1/rooms/grant", true;
    RoomJoin -> RoomJoinable, "/v1/rooms/join", true;
    RoomsCheck -> RoomsChecked, "/v1/rooms/check", true;
    GroupInfoPut -> GroupInfoStored, "/v1/rooms/group-info", true;
    TotpEnrol -> TotpEnrolled, "/v1/factors/totp/enrol", true;
    TotpProve -> FactorProven, "/v1/factors/totp/prove", true;
    SmsEnrol -> SmsSent, "/v1/factors/sms/enrol", true;
    SmsSend -> SmsSent, "/v1/factors/sms/send", true;
    SmsProve -> FactorProven, "/v1/factors/sms/prove", true;
    PasswordProveStart -> LoginStarted, "/v1/factors/password/start", true;
    PasswordProve -> FactorProven, "/v1/factors/password/prove", true;
    CeremonyBegin -> CeremonyBegun, "/v1/factors/ceremonies/begin", true;
    CeremonyFinish -> FactorProven, "/v1/factors/ceremonies/finish", true;
    CeremonyWait -> CeremonyStanding, "/v1/factors/ceremonies/wait", true;
    FactorRemove -> FactorGone, "/v1/factors/remove", true;
    FactorsRequest -> Factors, "/v1/factors", true;
    DirectoryChange -> DirectoryChanged, "/v1/directory/change", true;
    DirectoryRead -> DirectoryEntries, "/v1/directory/read", true;
    AccountsRequest -> Accounts, "/v1/accounts", true;
    LinkPut -> LinkStored, "/v1/link/put", false;
    LinkGet -> LinkBody, "/v1/link/get", false;
}
