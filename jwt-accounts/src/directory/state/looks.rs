//! What the names and titles of siblings look like, to refuse a title that
//! passes for another's.

use imbl::OrdSet;
use sha2::{Digest, Sha256};
use sotto_proto::{Title, skeleton};

use super::super::rule::Rule;

/// The siblings of one kind, each under what its name and its title look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Looks<N: Ord>(OrdSet<(Look, Option<N>)>);

/// Half of the SHA-256 of a skeleton: with a hundred thousand users, the text
/// would be most of what there is to keep.
type Look = [u8; 16];

impl<N: Ord> Default for Looks<N> {
    fn default() -> Self {
        Self(OrdSet::new())
    }
}

impl<N: Clone + Ord + ToString> Looks<N> {
    /// Whether a new sibling may have this name: names among themselves are
    /// told apart by being exact, but none may look like a title.
    pub fn check_name<'a>(
        &self,
        name: &N,
        title_of: impl Fn(&N) -> Option<&'a Title>,
    ) -> Result<(), Rule> {
        let look = look_of_name(name);
        let titled_so =
            |other: &&N| title_of(other).is_some_and(|title| look_of_title(title) == look);
        check_none(self.with(look).find(titled_so))
    }

    /// Whether a sibling, new or not, may have this title.
    pub fn check_title(&self, name: &N, title: Option<&Title>) -> Result<(), Rule> {
        let Some(title) = title else {
            return Ok(());
        };
        let mut alike = self.with(look_of_title(title));
        check_none(alike.find(|other| *other != name))
    }

    /// Notes a sibling under its name and its title.
    pub fn insert(&mut self, name: &N, title: Option<&Title>) {
        for look in looks_of(name, title) {
            self.0.insert((look, Some(name.clone())));
        }
    }

    /// Forgets a sibling, which was noted with this title.
    pub fn remove(&mut self, name: &N, title: Option<&Title>) {
        for look in looks_of(name, title) {
            self.0.remove(&(look, Some(name.clone())));
        }
    }

    fn with(&self, look: Look) -> impl Iterator<Item = &N> {
        // Nobody comes before everybody.
        let from_there = self.0.range((look, None)..);
        let same = from_there.take_while(move |(other, _)| *other == look);
        same.filter_map(|(_, name)| name.as_ref())
    }
}

fn check_none<N: ToString>(other: Option<&N>) -> Result<(), Rule> {
    match other {
        Some(other) => Err(Rule::Confusable(other.to_string())),
        None => Ok(()),
    }
}

fn looks_of<N: ToString>(name: &N, title: Option<&Title>) -> impl Iterator<Item = Look> {
    [look_of_name(name)]
        .into_iter()
        .chain(title.map(look_of_title))
}

fn look_of_name(name: &impl ToString) -> Look {
    look(&skeleton(&name.to_string()))
}

fn look_of_title(title: &Title) -> Look {
    look(&title.skeleton())
}

fn look(skeleton: &str) -> Look {
    let hash: [u8; 32] = Sha256::digest(skeleton).into();
    let mut look = Look::default();
    look.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    look
}
