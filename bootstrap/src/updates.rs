//! Where machines get updates from, and whom they trust for it. All of it is
//! read and compared here, before anything is changed on any of them.

use std::path::Path;

use sotto_service::private_files::{self, FileError};
use sotto_update::source::{CERTIFICATES_MAX, SourceError};
use sotto_update::{Digest, Pace, RootOfTrust, Source, UpdateError};

use crate::wish::UpdatesWish;

/// Folders that the unit of an update does not see.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// How machines are to update themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updates {
    /// Where releases are: https://…, or a folder of the machines.
    pub source: String,
    /// Whom they trust.
    pub root: RootOfTrust,
    /// Authorities of the source's certificate, PEM, instead of the machines'
    /// own.
    pub authorities: Option<String>,
}

/// Why machines cannot update themselves like that.
#[derive(Debug, thiserror::Error)]
pub enum UpdatesError {
    /// Not the one that was meant.
    #[error(
        "the file that --root-of-trust names has the fingerprint {0}, and --fingerprint says \
         another: ask those who release"
    )]
    OtherRoot(Digest),
    /// The file of the root.
    #[error(transparent)]
    Root(#[from] UpdateError),
    /// The file of the authorities.
    #[error(transparent)]
    File(#[from] FileError),
    /// The address.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Neither an address nor a folder.
    #[error("--updates must be https://…, or the absolute path of a folder on the machines")]
    Address,
    /// A folder that is not seen.
    #[error("an update sees nothing below {0}: choose another folder for --updates")]
    Hidden(&'static str),
    /// A folder has no certificate.
    #[error("--updates-ca-file is for https://…, and --updates names a folder: leave it out")]
    Authorities,
}

impl Updates {
    /// What is wanted; nothing when nothing was said.
    ///
    /// # Errors
    /// When what was said does not belong together.
    pub fn read(wish: &UpdatesWish) -> Result<Option<Self>, UpdatesError> {
        // The command line has all three or none.
        let (Some(source), Some(root), Some(fingerprint)) =
            (&wish.source, &wish.root_of_trust, wish.fingerprint)
        else {
            return Ok(None);
        };
        let root = RootOfTrust::read(root)?;
        if root.fingerprint != fingerprint {
            return Err(UpdatesError::OtherRoot(root.fingerprint));
        }
        let authorities = wish.updates_ca_file.as_deref();
        match source.starts_with("https://") {
            true => drop(Source::new(source, authorities, Pace::default())?),
            false => folder(Path::new(source), authorities)?,
        }
        let authorities = authorities.map(|file| private_files::read_text(file, CERTIFICATES_MAX));
        Ok(Some(Self {
            source: source.clone(),
            root,
            authorities: authorities.transpose()?,
        }))
    }
}

fn folder(source: &Path, authorities: Option<&Path>) -> Result<(), UpdatesError> {
    if !source.is_absolute() {
        return Err(UpdatesError::Address);
    }
    if let Some(hidden) = HIDDEN.iter().find(|hidden| source.starts_with(hidden)) {
        return Err(UpdatesError::Hidden(hidden));
    }
    match authorities {
        Some(_) => Err(UpdatesError::Authorities),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_that_an_update_sees() {
        assert!(folder(Path::new("/mnt/disk/releases"), None).is_ok());
        for hidden in ["/home/ann/releases", "/tmp/releases", "/root"] {
            let refused = folder(Path::new(hidden), None);
            assert!(matches!(refused, Err(UpdatesError::Hidden(_))), "{hidden}");
        }
        for wrong in ["releases", "http://mirror.example", "ftp://mirror.example"] {
            let refused = folder(Path::new(wrong), None);
            assert!(matches!(refused, Err(UpdatesError::Address)), "{wrong}");
        }
        let refused = folder(Path::new("/mnt/disk"), Some(Path::new("ca.pem")));
        assert!(matches!(refused, Err(UpdatesError::Authorities)));
    }
}
