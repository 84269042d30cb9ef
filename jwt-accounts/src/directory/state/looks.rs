//! What the names and titles of siblings look like, to refuse a title that
//! passes for another's.

use imbl::OrdMap;
use sotto_proto::{Title, skeleton};

use super::super::rule::Rule;

/// The siblings of one kind, in order, by the skeletons of their names and titles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Looks<N>(OrdMap<String, Vec<N>>);

impl<N> Default for Looks<N> {
    fn default() -> Self {
        Self(OrdMap::new())
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
        let look = skeleton(&name.to_string());
        let titled_so = |other: &&N| title_of(other).is_some_and(|title| title.skeleton() == look);
        self.check_none(self.with(&look).find(titled_so))
    }

    /// Whether a sibling, new or not, may have this title.
    pub fn check_title(&self, name: &N, title: Option<&Title>) -> Result<(), Rule> {
        let look = title.map(Title::skeleton).unwrap_or_default();
        self.check_none(self.with(&look).find(|other| *other != name))
    }

    /// Notes a sibling under its name and its title.
    pub fn insert(&mut self, name: &N, title: Option<&Title>) {
        for look in looks_of(name, title) {
            let alike = self.0.entry(look).or_default();
            if let Err(place) = alike.binary_search(name) {
                alike.insert(place, name.clone());
            }
        }
    }

    /// Forgets a sibling, which was noted with this title.
    pub fn remove(&mut self, name: &N, title: Option<&Title>) {
        for look in looks_of(name, title) {
            let Some(alike) = self.0.get_mut(&look) else {
                continue;
            };
            alike.retain(|other| other != name);
            if alike.is_empty() {
                self.0.remove(&look);
            }
        }
    }

    fn with(&self, look: &str) -> impl Iterator<Item = &N> {
        self.0.get(look).into_iter().flatten()
    }

    fn check_none(&self, other: Option<&N>) -> Result<(), Rule> {
        match other {
            Some(other) => Err(Rule::Confusable(other.to_string())),
            None => Ok(()),
        }
    }
}

fn looks_of<N: ToString>(name: &N, title: Option<&Title>) -> impl Iterator<Item = String> {
    let of_name = skeleton(&name.to_string());
    let of_title = title.map(Title::skeleton);
    [of_name].into_iter().chain(of_title)
}
