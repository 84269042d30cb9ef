//! The whole table of who may do what, with which factors, on one object and
//! the levels above it.

use std::fmt;

use super::demand::ActionKind;
use super::denied::{Missing, Why};
use super::factor::Proven;
use super::facts::Facts;
use super::judge::judge_facts;
use super::question::World;
use crate::directory::{Role, Scope, State};

/// Role x action x factors on one chain. Shows itself as a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Who: somebody with one role in one place and nothing else.
    pub standings: Vec<String>,
    /// One per action and place.
    pub rows: Vec<Row>,
}

/// One action in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What is done.
    pub action: ActionKind,
    /// Where.
    pub object: Scope,
    /// The answer to each standing.
    pub cells: Vec<Cell>,
}

/// The answer to one standing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// With nothing proven.
    Yes,
    /// When all of this is proven.
    With(Vec<Missing>),
    /// Whatever is proven.
    No,
}

/// One kind of somebody: a role at a place in the chain, perhaps as a guest.
#[derive(Clone, Copy)]
struct Standing {
    role: Option<(usize, Role)>,
    guest: bool,
}

/// What anybody may do to an object and to the levels above it. Empty when
/// there is no such object.
pub fn matrix(state: &State, object: &Scope, now_ms: i64) -> Matrix {
    let chain = Facts::supposed(state, object, None, false);
    let chain = chain.into_iter().flat_map(|facts| facts.levels);
    let chain: Vec<Scope> = chain.map(|level| level.scope).collect();
    let standings = standings(chain.len());
    let answer = |standing: &Standing, action, object: &Scope| {
        let deepest = chain.iter().position(|scope| scope == object);
        // A role further down says nothing up here.
        let role = standing.role.filter(|(place, _)| Some(*place) <= deepest);
        cell(
            state,
            Standing { role, ..*standing },
            action,
            object,
            now_ms,
        )
    };
    let rows = chain.iter().flat_map(|object| {
        let actions = ActionKind::ALL.into_iter();
        let actions = actions.filter(|action| action.applies_to(object));
        actions.map(|action| Row {
            action,
            object: object.clone(),
            cells: standings
                .iter()
                .map(|standing| answer(standing, action, object))
                .collect(),
        })
    });
    Matrix {
        rows: rows.collect(),
        standings: standings
            .iter()
            .map(|standing| standing.name(&chain))
            .collect(),
    }
}

fn standings(depth: usize) -> Vec<Standing> {
    let member = |role| Standing { role, guest: false };
    let roles = (0..depth).flat_map(|place| [(place, Role::User), (place, Role::Owner)]);
    let members = [None].into_iter().chain(roles.map(Some)).map(member);
    let guest = (depth == 3).then_some(Standing {
        role: Some((2, Role::User)),
        guest: true,
    });
    members.chain(guest).collect()
}

impl Standing {
    fn name(&self, chain: &[Scope]) -> String {
        let Some((place, role)) = self.role else {
            return "none".to_owned();
        };
        let level = match chain.get(place) {
            Some(Scope::Org) | None => "org",
            Some(Scope::Project(_)) => "project",
            Some(Scope::Room(_)) => "room",
        };
        if self.guest {
            format!("guest of {level}")
        } else {
            format!("{role} of {level}")
        }
    }
}

fn cell(
    state: &State,
    standing: Standing,
    action: ActionKind,
    object: &Scope,
    now_ms: i64,
) -> Cell {
    let world = World {
        proven: &Proven::none(),
        now_ms,
        introduced: false,
    };
    let facts = Facts::supposed(state, object, standing.role, standing.guest);
    match facts.map(|facts| judge_facts(&facts, world, action)) {
        Some(Ok(())) => Cell::Yes,
        Some(Err(Why::Missing(missing))) => Cell::With(missing),
        Some(Err(_)) | None => Cell::No,
    }
}

/// A paragraph per place. Demands are lettered in the table and told below it.
impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut legend: Vec<String> = Vec::new();
        let mut table = self.headings().to_vec();
        let mut place = None;
        for row in &self.rows {
            if place.replace(&row.object) != Some(&row.object) {
                table.push(vec![format!("in {}", row.object)]);
            }
            let what = format!("  {}", row.action.phrase());
            let cells = row.cells.iter().map(|cell| cell.text(&mut legend));
            table.push([what].into_iter().chain(cells).collect());
        }
        let widths = widths(&table);
        for line in &table {
            let padded = line.iter().zip(&widths);
            let padded: Vec<_> = padded
                .map(|(text, width)| format!("{text:<width$}"))
                .collect();
            writeln!(f, "{}", padded.join("  ").trim_end())?;
        }
        for (index, demand) in legend.iter().enumerate() {
            writeln!(f, "{}: {demand}", letter(index))?;
        }
        Ok(())
    }
}

impl Matrix {
    /// Two lines, so that the table is no wider than a terminal: "user" above
    /// "of project".
    fn headings(&self) -> [Vec<String>; 2] {
        let names = self.standings.iter().map(|name| name.as_str());
        let names = names.map(|name| name.split_once(' ').unwrap_or((name, "")));
        let (roles, places): (Vec<_>, Vec<_>) = names.unzip();
        [roles, places].map(|names| [""].into_iter().chain(names).map(str::to_owned).collect())
    }
}

impl Cell {
    fn text(&self, legend: &mut Vec<String>) -> String {
        match self {
            Self::Yes => "yes".to_owned(),
            Self::No => "-".to_owned(),
            Self::With(missing) => {
                let letters = missing.iter().map(|missing| {
                    let told = format!("{}, for {}", missing.demand, missing.level);
                    let known = legend.iter().position(|demand| *demand == told);
                    letter(known.unwrap_or_else(|| {
                        legend.push(told);
                        legend.len() - 1
                    }))
                });
                letters.collect::<Vec<_>>().join("+")
            }
        }
    }
}

/// a to z, then z1, z2, …
fn letter(index: usize) -> String {
    let letter = u8::try_from(index)
        .ok()
        .and_then(|index| b'a'.checked_add(index));
    match letter.filter(u8::is_ascii_lowercase) {
        Some(letter) => char::from(letter).to_string(),
        None => format!("z{index}"),
    }
}

/// Of the columns; a line of one cell runs across all of them.
fn widths(table: &[Vec<String>]) -> Vec<usize> {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let lines = table.iter().filter(|line| line.len() > 1);
        let cells = lines.filter_map(|line| line.get(column));
        cells
            .map(|text| text.chars().count())
            .max()
            .unwrap_or_default()
    };
    (0..columns).map(width).collect()
}
