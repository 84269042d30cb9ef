//! How much may pass: connections and bytes, per org and of all. Pure; the
//! time is an argument.

use std::collections::BTreeMap;

use sotto_proto::OrgName;

use crate::refusal::Refusal;
use crate::table::{NameTable, Org};

/// A day, in seconds.
const DAY: u64 = 24 * 3_600;

/// What is open, and what has passed today. A restart begins the day anew.
#[derive(Debug, Default)]
pub struct Budget {
    open: u32,
    orgs: BTreeMap<OrgName, Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    open: u32,
    /// Days since 1970, UTC.
    day: u64,
    bytes: u64,
}

impl Budget {
    /// Counts one more connection of an org.
    ///
    /// # Errors
    /// [`Refusal::Full`] or [`Refusal::QuotaUsed`]; then nothing is counted.
    pub fn open(&mut self, table: &NameTable, org: &Org, now: u64) -> Result<(), Refusal> {
        let spent = self.orgs.entry(org.name.clone()).or_default();
        if self.open >= table.limits().connections || spent.open >= org.connections() {
            return Err(Refusal::Full);
        }
        if spent.is_used_up(org, now) {
            return Err(Refusal::QuotaUsed);
        }
        self.open += 1;
        spent.open += 1;
        Ok(())
    }

    /// Counts one connection of an org less.
    pub fn close(&mut self, org: &OrgName) {
        self.open = self.open.saturating_sub(1);
        if let Some(spent) = self.orgs.get_mut(org) {
            spent.open = spent.open.saturating_sub(1);
        }
    }

    /// Counts bytes that pass.
    ///
    /// # Errors
    /// [`Refusal::QuotaUsed`]; then they are not to pass.
    pub fn pass(&mut self, org: &Org, bytes: u64, now: u64) -> Result<(), Refusal> {
        let spent = self.orgs.entry(org.name.clone()).or_default();
        if spent.is_used_up(org, now) {
            return Err(Refusal::QuotaUsed);
        }
        spent.bytes = spent.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Connections of an org, and of all.
    pub fn connections(&self, org: &OrgName) -> (u32, u32) {
        (self.orgs.get(org).map_or(0, |spent| spent.open), self.open)
    }
}

impl Spent {
    fn is_used_up(&mut self, org: &Org, now: u64) -> bool {
        let today = now / DAY;
        // A clock that goes back gives nothing back.
        if self.day < today {
            self.day = today;
            self.bytes = 0;
        }
        org.bytes_per_day
            .is_some_and(|most| self.bytes >= most.get())
    }
}

#[cfg(test)]
mod tests {
    use nkeys::KeyPair;

    use super::*;

    fn table(connections: u32, org_connections: u32, bytes: u64) -> NameTable {
        let key = KeyPair::new_server().public_key();
        NameTable::parse(&format!(
            "limits.connections = {connections}\n[[org]]\nname = \"acme\"\nkeys = [\"{key}\"]\n\
             names = [\"a.example\"]\nconnections = {org_connections}\nbytes_per_day = {bytes}"
        ))
        .unwrap()
    }

    fn acme(table: &NameTable) -> &Org {
        table.owner(&"a.example".parse().unwrap()).unwrap()
    }

    #[test]
    fn connections_are_bounded_for_each_and_for_all() {
        for table in [table(2, 9, 9), table(9, 2, 9)] {
            let org = acme(&table);
            let mut budget = Budget::default();
            budget.open(&table, org, 0).unwrap();
            budget.open(&table, org, 0).unwrap();
            assert_eq!(budget.open(&table, org, 0), Err(Refusal::Full));
            budget.close(&org.name);
            budget.open(&table, org, 0).unwrap();
            assert_eq!(budget.connections(&org.name), (2, 2));
        }
    }

    #[test]
    fn the_bytes_of_a_day_come_back_the_next() {
        let table = table(9, 9, 100);
        let org = acme(&table);
        let mut budget = Budget::default();
        budget.pass(org, 60, DAY - 1).unwrap();
        budget.pass(org, 60, DAY - 1).unwrap();
        assert_eq!(budget.pass(org, 1, DAY - 1), Err(Refusal::QuotaUsed));
        assert_eq!(budget.open(&table, org, DAY - 1), Err(Refusal::QuotaUsed));
        budget.open(&table, org, DAY).unwrap();
        budget.pass(org, 100, DAY).unwrap();
        assert_eq!(budget.pass(org, 1, DAY - 1), Err(Refusal::QuotaUsed));
    }
}
