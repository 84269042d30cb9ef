//! Titles: what people read in place of a name.

use sotto_proto::wire::directory_command::Ask;
use sotto_proto::{Title, wire};

/// Gives a title to something, or takes it away.
pub fn set(of: wire::title_set::Of, title: Option<&Title>) -> Ask {
    Ask::SetTitle(wire::TitleSet {
        of: Some(of),
        title: text(title).to_owned(),
    })
}

/// As it stands in messages and columns: empty where there is none.
pub fn text(title: Option<&Title>) -> &str {
    title.map(Title::as_str).unwrap_or_default()
}
