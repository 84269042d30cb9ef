//! How much may be stored, and how fast: `[limits]` of server.toml, for all
//! orgs, and `[orgs.limits]` for one, where what it leaves out is as for all.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

/// Messages that one device may send per second, when nothing is said.
const MESSAGES_PER_SECOND: u32 = 1_000;
/// Messages that one device may send at once, when nothing is said.
const BURST: u64 = 20_000;

/// As written. What is left out does not limit, but for the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Messages that an org keeps in all, handshakes and chunks among them.
    pub org_messages: Option<NonZeroU64>,
    /// Their bytes.
    pub org_bytes: Option<NonZeroU64>,
    /// Messages that one room keeps.
    pub room_messages: Option<NonZeroU64>,
    /// Their bytes.
    pub room_bytes: Option<NonZeroU64>,
    /// Messages that one device sends in a day.
    pub device_messages_per_day: Option<NonZeroU64>,
    /// Their bytes.
    pub device_bytes_per_day: Option<NonZeroU64>,
    /// Messages that one device sends per second, for long.
    pub messages_per_second: Option<NonZeroU32>,
    /// Messages that one device sends at once.
    pub burst: Option<NonZeroU64>,
    /// How many days messages and files are kept at most. Handshakes are kept
    /// as long as their room.
    pub retention_days: Option<NonZeroU16>,
}

/// The limits in force for one org.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages that the org keeps in all.
    pub org_messages: Option<u64>,
    /// Their bytes.
    pub org_bytes: Option<u64>,
    /// Messages that one room keeps.
    pub room_messages: Option<u64>,
    /// Their bytes.
    pub room_bytes: Option<u64>,
    /// Messages that one device sends in a day.
    pub device_messages_per_day: Option<u64>,
    /// Their bytes.
    pub device_bytes_per_day: Option<u64>,
    /// Messages that one device sends per second, for long.
    pub messages_per_second: u32,
    /// Messages that one device sends at once.
    pub burst: u64,
    /// How many days messages and files are kept at most.
    pub retention_days: Option<u16>,
}

impl LimitsConfig {
    /// What is in force where `self` is said of one org and `all` of all.
    pub fn or(&self, all: &Self) -> Limits {
        Limits {
            org_messages: self.org_messages.or(all.org_messages).map(u64::from),
            org_bytes: self.org_bytes.or(all.org_bytes).map(u64::from),
            room_messages: self.room_messages.or(all.room_messages).map(u64::from),
            room_bytes: self.room_bytes.or(all.room_bytes).map(u64::from),
            device_messages_per_day: self
                .device_messages_per_day
                .or(all.device_messages_per_day)
                .map(u64::from),
            device_bytes_per_day: self
                .device_bytes_per_day
                .or(all.device_bytes_per_day)
                .map(u64::from),
            messages_per_second: self
                .messages_per_second
                .or(all.messages_per_second)
                .map_or(MESSAGES_PER_SECOND, u32::from),
            burst: self.burst.or(all.burst).map_or(BURST, u64::from),
            retention_days: self.retention_days.or(all.retention_days).map(u16::from),
        }
    }

    /// Whether nothing is said.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Limits {
    /// Where nothing is said.
    fn default() -> Self {
        LimitsConfig::default().or(&LimitsConfig::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_org_wins() {
        let all: LimitsConfig = toml::from_str("org_bytes = 100\nburst = 5").unwrap();
        let own: LimitsConfig = toml::from_str("org_bytes = 200\nroom_messages = 7").unwrap();
        let limits = own.or(&all);
        assert_eq!(limits.org_bytes, Some(200));
        assert_eq!(limits.room_messages, Some(7));
        assert_eq!((limits.burst, limits.messages_per_second), (5, 1_000));
        assert_eq!(limits.room_bytes, None);
    }

    #[test]
    fn nothing_is_not_a_limit() {
        for wrong in ["org_bytes = 0", "org_bytes = -1", "org_byte = 1"] {
            assert!(toml::from_str::<LimitsConfig>(wrong).is_err(), "{wrong}");
        }
    }
}
