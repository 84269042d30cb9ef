//! Which links there are, and which of them a connection goes over. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use sotto_proto::OrgName;

use crate::name::{HostName, Pattern};

/// Most links of one key.
pub const LINKS_MAX: usize = 64;
/// Most routes that one link announces.
pub const ROUTES_MAX: usize = 256;

/// What a dialer announces: a name, and the port of it if not any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The names.
    pub pattern: Pattern,
    /// The port that clients connect to; `None`: any.
    pub port: Option<u16>,
}

/// A dialer's link.
#[derive(Debug)]
pub struct Entry<L> {
    /// The org that its key belongs to.
    pub org: OrgName,
    /// Its public key.
    pub key: String,
    /// What it announced.
    pub routes: Vec<Route>,
    /// The link.
    pub link: L,
}

/// All links, each under a number that is never used again.
#[derive(Debug)]
pub struct Registry<L> {
    links: BTreeMap<u64, Entry<L>>,
    next: u64,
}

/// The key has as many links as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this key has {LINKS_MAX} links already: dial with fewer")]
pub struct TooManyLinks;

sotto_log::log_safe!(TooManyLinks);

impl Route {
    fn fits(&self, name: &HostName, port: u16) -> bool {
        self.pattern.matches(name) && self.port.is_none_or(|own| own == port)
    }

    /// How closely it says what it fits: an exact name goes before a wildcard,
    /// then a port before none.
    fn closeness(&self) -> (bool, bool) {
        (
            matches!(self.pattern, Pattern::Exact(_)),
            self.port.is_some(),
        )
    }
}

/// The route that a connection to this name and port takes.
pub fn route<'a, T>(
    routes: impl IntoIterator<Item = (&'a Route, T)>,
    name: &HostName,
    port: u16,
) -> Option<T> {
    let fitting = routes
        .into_iter()
        .filter(|(route, _)| route.fits(name, port));
    let closest = fitting.max_by_key(|(route, _)| route.closeness());
    closest.map(|(_, target)| target)
}

impl<L> Default for Registry<L> {
    fn default() -> Self {
        Self {
            links: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<L: Clone> Registry<L> {
    /// Adds a link of a dialer that was admitted.
    ///
    /// # Errors
    /// [`TooManyLinks`].
    pub fn add(&mut self, entry: Entry<L>) -> Result<u64, TooManyLinks> {
        self.has_room(&entry.key)?;
        let id = self.next;
        self.next += 1;
        self.links.insert(id, entry);
        Ok(id)
    }

    /// Whether a key may have one more.
    ///
    /// # Errors
    /// [`TooManyLinks`].
    pub fn has_room(&self, key: &str) -> Result<(), TooManyLinks> {
        let same = self.links.values().filter(|other| other.key == key);
        match same.count() < LINKS_MAX {
            true => Ok(()),
            false => Err(TooManyLinks),
        }
    }

    /// Forgets a link.
    pub fn remove(&mut self, id: u64) -> Option<Entry<L>> {
        self.links.remove(&id)
    }

    /// All links.
    pub fn iter(&self) -> impl Iterator<Item = &L> {
        self.links.values().map(|entry| &entry.link)
    }

    /// The links that a connection to a name of this org may take: those that
    /// were announced for it most closely first, of these the ones with the
    /// least load, then the oldest.
    pub fn candidates(
        &self,
        org: &OrgName,
        name: &HostName,
        port: u16,
        load: impl Fn(&L) -> usize,
    ) -> Vec<L> {
        let fit = |entry: &Entry<L>| {
            let routes = entry.routes.iter().filter(|route| route.fits(name, port));
            let closeness = routes.map(Route::closeness).max()?;
            Some((Reverse(closeness), entry.link.clone()))
        };
        let of_org = self.links.values().filter(|entry| entry.org == *org);
        let mut links: Vec<_> = of_org.filter_map(fit).collect();
        links.sort_by_cached_key(|(closeness, link)| (*closeness, load(link)));
        links.into_iter().map(|(_, link)| link).collect()
    }

    /// Takes away the links that are not admitted any more.
    pub fn take_unless(&mut self, admitted: impl Fn(&Entry<L>) -> bool) -> Vec<Entry<L>> {
        let gone = self.links.extract_if(.., |_, entry| !admitted(entry));
        gone.map(|(_, entry)| entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(org: &str, key: &str, routes: &[(&str, Option<u16>)], link: usize) -> Entry<usize> {
        let routes = routes.iter().map(|(pattern, port)| Route {
            pattern: pattern.parse().unwrap(),
            port: *port,
        });
        Entry {
            org: org.parse().unwrap(),
            key: key.to_owned(),
            routes: routes.collect(),
            link,
        }
    }

    fn candidates(registry: &Registry<usize>, org: &str, name: &str, port: u16) -> Vec<usize> {
        registry.candidates(
            &org.parse().unwrap(),
            &name.parse().unwrap(),
            port,
            |&link| link,
        )
    }

    #[test]
    fn a_connection_takes_the_least_loaded_link_of_the_names_org() {
        let mut registry = Registry::default();
        for (org, routes, load) in [
            ("acme", ("chat.example", None), 3),
            ("acme", ("*.example", Some(443)), 1),
            ("acme", ("other.example", None), 0),
            ("emca", ("chat.example", None), 2),
        ] {
            registry.add(entry(org, "N", &[routes], load)).unwrap();
        }
        assert_eq!(candidates(&registry, "acme", "chat.example", 443), [3, 1]);
        assert_eq!(candidates(&registry, "acme", "some.example", 443), [1]);
        assert_eq!(candidates(&registry, "acme", "chat.example", 4222), [3]);
        let nearer = ("chat.example", Some(443));
        let more = [("chat.example", None), nearer];
        let fuller = registry.add(entry("acme", "N", &more, 9)).unwrap();
        assert_eq!(
            candidates(&registry, "acme", "chat.example", 443),
            [9, 3, 1]
        );
        registry.add(entry("acme", "N", &[nearer], 5)).unwrap();
        assert_eq!(
            candidates(&registry, "acme", "chat.example", 443),
            [5, 9, 3, 1]
        );
        registry.remove(fuller).unwrap();
        registry.remove(1).unwrap();
        assert_eq!(candidates(&registry, "acme", "chat.example", 443), [5, 3]);
        let gone = registry.take_unless(|entry| entry.org.to_string() == "emca");
        assert_eq!(gone.len(), 3);
        assert!(candidates(&registry, "acme", "chat.example", 443).is_empty());
    }

    #[test]
    fn the_links_of_a_key_are_bounded_and_numbers_are_never_used_again() {
        let mut registry = Registry::default();
        for link in 0..LINKS_MAX {
            registry.add(entry("acme", "N1", &[], link)).unwrap();
        }
        assert_eq!(registry.add(entry("acme", "N1", &[], 0)), Err(TooManyLinks));
        let other = registry.add(entry("acme", "N2", &[], 0)).unwrap();
        registry.remove(other).unwrap();
        assert!(registry.add(entry("acme", "N2", &[], 0)).unwrap() > other);
    }

    #[test]
    fn the_closest_route_is_taken() {
        let routes = entry(
            "acme",
            "N",
            &[
                ("*.example", None),
                ("*.example", Some(1)),
                ("a.example", None),
                ("a.example", Some(2)),
            ],
            0,
        );
        let numbered = || routes.routes.iter().zip(0..);
        let taken = |name: &str, port| route(numbered(), &name.parse().unwrap(), port);
        assert_eq!(taken("a.example", 2), Some(3));
        assert_eq!(taken("a.example", 1), Some(2));
        assert_eq!(taken("b.example", 1), Some(1));
        assert_eq!(taken("b.example", 2), Some(0));
        assert_eq!(taken("example", 1), None);
    }
}
