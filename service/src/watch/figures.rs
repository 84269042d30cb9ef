//! Where metrics come from.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::Registry;
use sotto_proto::OrgName;

/// By org.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfOrg {
    /// Its name.
    pub org: String,
}

impl From<&OrgName> for OfOrg {
    fn from(org: &OrgName) -> Self {
        Self {
            org: org.to_string(),
        }
    }
}

/// The metrics of a program. No label may name a user, a room or a device.
pub trait Figures: Send + Sync + 'static {
    /// What it counts all the time.
    fn registry(&self) -> &Registry;

    /// What it finds out when somebody asks, under other names. It must end by
    /// itself, soon: what is not known by then is left out.
    fn read(&self) -> impl Future<Output = Registry> + Send {
        std::future::ready(Registry::default())
    }
}

impl Figures for Registry {
    fn registry(&self) -> &Registry {
        self
    }
}

impl<F: Figures> Figures for Arc<F> {
    fn registry(&self) -> &Registry {
        F::registry(self)
    }

    fn read(&self) -> impl Future<Output = Registry> + Send {
        F::read(self)
    }
}
