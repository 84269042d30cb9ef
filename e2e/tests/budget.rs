//! What Sotto costs on the wire, against what `docs/budget.md` says it costs:
//! whoever makes something dearer sees it here, and changes the page on
//! purpose with `cargo xtask budget`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test"
)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use sotto_e2e::case::Case;
use sotto_e2e::crowd;
use sotto_e2e::network::Network;
use sotto_e2e::person::Person;
use sotto_e2e::session;
use sotto_faults::{Conditions, Traffic};

/// Far away, so that what waits for an answer is told from what does not.
const FAR: Conditions = Conditions {
    delay: Duration::from_millis(40),
    ..Conditions::GOOD
};

/// Set: write the page in place of comparing with it.
const WRITE: &str = "SOTTO_BUDGET_WRITE";

/// How often an idle device is seen to look at the directory while it is
/// measured.
const IDLE_LOOKS: u64 = 3;

/// Where on the page that stands.
const IDLE_ROW: usize = 4;
const IDLE: &str = "nothing, for ten minutes";

/// Messages of the longest catch-up, one frame each.
const MANY: usize = 10_000;

/// Round trips of which one more is noticed.
const FEW: u64 = 5;

/// What something costs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cost {
    what: String,
    up: u64,
    down: u64,
    round_trips: u64,
}

impl Cost {
    fn new(what: &str, traffic: Traffic) -> Self {
        Self {
            what: what.to_owned(),
            up: traffic.up,
            down: traffic.down,
            round_trips: traffic.round_trips,
        }
    }

    /// Reads a row of the page.
    fn parse(row: &str) -> Option<Self> {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, what, up, down, round_trips, _] = cells[..] else {
            return None;
        };
        let number = |text: &str| text.replace(',', "").parse().ok();
        Some(Self {
            what: what.to_owned(),
            up: number(up)?,
            down: number(down)?,
            round_trips: number(round_trips)?,
        })
    }

    /// The same, measured twice.
    fn or_cheaper(self, other: &Self) -> Self {
        Self {
            up: self.up.min(other.up),
            down: self.down.min(other.down),
            round_trips: self.round_trips.min(other.round_trips),
            ..self
        }
    }

    /// Whether this is more than `budget` by more than what differs from run
    /// to run: lengths of signatures, of numbers, of a name that is drawn, a
    /// ping, and, on a busy machine, how many calls overlap: what connecting
    /// took is subtracted, and differs itself.
    fn exceeds(&self, budget: &Self) -> bool {
        // Of the idle minutes that are measured one may have a beacon more.
        let share = if self.what == IDLE { 3 } else { 20 };
        let bytes = |budget: u64| budget + budget / share + 200;
        let round_trips = match budget.round_trips {
            few @ ..=FEW => few + 1,
            many => many + 4 + many / 10,
        };
        self.up > bytes(budget.up)
            || self.down > bytes(budget.down)
            || self.round_trips > round_trips
    }
}

/// A device whose traffic is counted.
struct Counted<'a> {
    person: &'a Person,
    network: &'a Network,
    /// What it costs to connect, which is in every command.
    connect: Traffic,
}

impl<'a> Counted<'a> {
    /// A device with nothing left to do. How many round trips connecting takes
    /// depends on which calls overlap: it is measured three times.
    fn new(person: &'a Person, network: &'a Network) -> Self {
        person.does(&["sync"]).unwrap();
        let times = [(); 3].map(|()| {
            let before = total(network);
            person.does(&["sync"]).unwrap();
            total(network) - before
        });
        let middle = |of: fn(&Traffic) -> u64| {
            let mut sorted = times.each_ref().map(of);
            sorted.sort_unstable();
            sorted[1]
        };
        let connect = Traffic {
            up: middle(|time| time.up),
            down: middle(|time| time.down),
            round_trips: middle(|time| time.round_trips),
            ..Traffic::default()
        };
        Self {
            person,
            network,
            connect,
        }
    }

    /// What a command costs beyond connecting.
    fn does(&self, what: &str, arguments: &[&str]) -> Cost {
        let before = total(self.network);
        self.person.does(arguments).unwrap();
        let whole = total(self.network) - before;
        let beyond = |whole: u64, connect: u64| whole.saturating_sub(connect);
        Cost {
            what: what.to_owned(),
            up: beyond(whole.up, self.connect.up),
            down: beyond(whole.down, self.connect.down),
            round_trips: beyond(whole.round_trips, self.connect.round_trips),
        }
    }
}

#[test]
fn nothing_costs_more_than_its_budget() {
    let mut costs = measure();
    if env::var_os(WRITE).is_some() {
        costs.extend(join_a_thousand());
        return fs::write(path(), page(&costs)).unwrap();
    }
    // On a busy machine something may be said twice. Not every time.
    if judge(&costs).is_err() {
        for (cost, again) in costs.iter_mut().zip(measure()) {
            *cost = again.or_cheaper(cost);
        }
    }
    judge(&costs).unwrap();
}

/// Every row of the page, in order.
fn measure() -> Vec<Cost> {
    thread::scope(|scope| {
        let idle = scope.spawn(idle);
        let mut costs = work();
        costs.insert(IDLE_ROW, idle.join().unwrap());
        eprintln!("{}", page(&costs));
        costs
    })
}

/// What a device costs that does something.
fn work() -> Vec<Cost> {
    let (case, bob) = together();
    let network = Network::new(case.server.layout(), FAR, 1).unwrap();
    let far_bob = bob.behind(&network);
    let counted = Counted::new(&far_bob, &network);
    let mut costs = vec![
        Cost::new("connect, with nothing new", counted.connect),
        reconnect(&far_bob, &network),
        counted.does("send a text", &["send", "barn", "hello"]),
        receive(&case, &far_bob, &network),
    ];
    for count in [1, 100, MANY] {
        session::send_one_by_one(&case.alice, &case.room, count).unwrap();
        let what = match count {
            1 => "catch up with a text".to_owned(),
            count => format!(
                "catch up with {} texts, a frame each",
                thousands(count as u64)
            ),
        };
        costs.push(counted.does(&what, &["--wait", "600", "sync"]));
    }
    let hundred: Vec<String> = (0..100).map(|n| format!("text {n:03}")).collect();
    let sending = ["send", "barn", "--stdin"];
    let sending = case
        .alice
        .starts(&sending, Some(hundred.join("\n")))
        .unwrap();
    sending.finish().unwrap().success().unwrap();
    costs.push(counted.does(
        "catch up with 100 texts that were queued at once",
        &["sync"],
    ));

    let members: Vec<Person> = (0..7)
        .map(|n| {
            let name = format!("member{n}");
            case.member(case.device(&name).unwrap(), &name).unwrap()
        })
        .collect();
    members.iter().for_each(|member| {
        member.does(&["sync"]).unwrap();
    });
    far_bob.does(&["sync"]).unwrap();
    costs.extend(join(&case, "10"));

    costs
}

/// A server, and Alice and Bob in a room.
fn together() -> (Case, Person) {
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    (case, bob)
}

#[test]
#[ignore = "filling the room takes minutes: by hand"]
fn a_room_of_a_thousand_costs_no_more_than_its_budget() {
    judge(&join_a_thousand()).unwrap();
}

/// What a room costs in which a thousand devices are.
fn join_a_thousand() -> [Cost; 2] {
    let case = Case::new().unwrap();
    let started = Instant::now();
    crowd::fill(&case.alice, &case.room, 998).unwrap();
    eprintln!("the room is full after {:?}", started.elapsed());
    let costs = join(&case, "1,000");
    eprintln!("{}", page(&costs));
    costs
}

/// What it costs a device that is at work to lose its connections and to have
/// new ones.
fn reconnect(person: &Person, network: &Network) -> Cost {
    let mut following = person.starts(&["recv", "barn", "--follow"], None).unwrap();
    let connected = |network: &Network| quiet(network, Duration::from_secs(3));
    connected(network);
    let before = total(network);
    network.reset();
    let online = |line: &serde_json::Value| (line["event"] == "online").then_some(());
    following.wait_for("a new connection", online).unwrap();
    connected(network);
    let cost = Cost::new("connect again, with nothing new", total(network) - before);
    following.interrupt().unwrap();
    cost
}

/// What a device costs that is connected for ten minutes, in a room where one
/// other is, and nothing happens: from one look at the directory to another,
/// and as much more as makes ten minutes.
fn idle() -> Cost {
    let (case, bob) = together();
    let network = Network::new(case.server.layout(), FAR, 4).unwrap();
    let follow = ["recv", "barn", "--follow"];
    let other = case.alice.starts(&follow, None).unwrap();
    let following = bob.behind(&network).starts(&follow, None).unwrap();
    // In the first of these minutes they say what they have read (HOLE-1).
    look_at_directory(&network);
    look_at_directory(&network);
    let before = total(&network);
    for _ in 0..IDLE_LOOKS {
        look_at_directory(&network);
    }
    let Traffic {
        up,
        down,
        round_trips,
        ..
    } = total(&network) - before;
    other.interrupt().unwrap();
    following.interrupt().unwrap();
    let ten_minutes = |measured: u64| measured * 10 / IDLE_LOOKS;
    Cost {
        what: IDLE.to_owned(),
        up: ten_minutes(up),
        down: ten_minutes(down),
        round_trips: ten_minutes(round_trips),
    }
}

/// Waits for the next look at the directory, which is once a minute.
fn look_at_directory(network: &Network) {
    let [before, _] = network.traffic();
    let started = Instant::now();
    while network.traffic()[0] == before && started.elapsed() < Duration::from_secs(150) {
        thread::sleep(Duration::from_millis(50));
    }
    quiet(network, Duration::from_secs(1));
}

/// What one more text costs who is connected already.
fn receive(case: &Case, person: &Person, network: &Network) -> Cost {
    let mut following = person.starts(&["recv", "barn", "--follow"], None).unwrap();
    case.alice.does(&["send", "barn", "are you there"]).unwrap();
    let shows =
        |text: &'static str| move |line: &serde_json::Value| (line["text"] == text).then_some(());
    following
        .wait_for("the first text", shows("are you there"))
        .unwrap();
    settle(network);
    let before = total(network);
    case.alice.does(&["send", "barn", "listen"]).unwrap();
    following
        .wait_for("the second text", shows("listen"))
        .unwrap();
    settle(network);
    let cost = Cost::new("receive a text while connected", total(network) - before);
    following.interrupt().unwrap();
    cost
}

/// What joining a room costs whoever comes in, and an owner who lets them in.
fn join(case: &Case, size: &str) -> [Cost; 2] {
    let network = Network::new(case.server.layout(), FAR, 2).unwrap();
    let newcomer = case.device("newcomer").unwrap();
    newcomer
        .does(&["signup", &case.invite().unwrap(), "newcomer"])
        .unwrap();
    newcomer.does(&["sync"]).unwrap();
    let far = newcomer.behind(&network);
    let owners_network = Network::new(case.server.layout(), FAR, 3).unwrap();
    let owner = case.alice.clone().behind(&owners_network);
    let letting_in = Counted::new(&owner, &owners_network);
    let coming_in = Counted::new(&far, &network);
    [
        letting_in.does(
            &format!("let a device into a room, as the {size}th member"),
            &["room", "invite", &case.room, "newcomer"],
        ),
        coming_in.does(
            &format!("come into a room, as the {size}th member"),
            &["sync"],
        ),
    ]
}

/// Waits until nothing goes over the wire any more.
fn settle(network: &Network) {
    quiet(network, Duration::from_millis(500));
}

/// Waits until nothing has gone over the wire for so long.
fn quiet(network: &Network, pause: Duration) {
    let started = Instant::now();
    let mut last = total(network);
    while started.elapsed() < 20 * pause {
        thread::sleep(pause);
        let now = total(network);
        if now == last {
            return;
        }
        last = now;
    }
}

fn total(network: &Network) -> Traffic {
    let [gateway, nats] = network.traffic();
    gateway + nats
}

/// Compares with the page.
fn judge(costs: &[Cost]) -> Result<(), String> {
    let committed = fs::read_to_string(path()).unwrap();
    let budgets: Vec<Cost> = committed.lines().filter_map(Cost::parse).collect();
    for cost in costs {
        let budget = budgets.iter().find(|budget| budget.what == cost.what);
        let Some(budget) = budget else {
            let what = &cost.what;
            return Err(format!(
                "docs/budget.md has no row `{what}`: run `cargo xtask budget`"
            ));
        };
        if cost.exceeds(budget) {
            return Err(format!(
                "costs {cost:?}, and docs/budget.md allows {budget:?}: make it cheaper, or say \
                 with `cargo xtask budget` that it is worth it"
            ));
        }
    }
    Ok(())
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/budget.md")
}

fn page(costs: &[Cost]) -> String {
    let mut page = "\
# What it costs on the wire

Written by `cargo xtask budget`, which plays every row with the real programs through a counting \
proxy at 80 ms round trip; the test `nothing_costs_more_than_its_budget` fails when a row gets \
dearer by more than 5 % (a third, where nothing happens) and 200 bytes, or by more than one \
round trip where there are five or fewer, and by more than four where there are more. The rows of a thousand members take minutes: another test compares them, by hand. \
Bytes are those of the TCP \
streams, TLS included, to the gateway and to NATS together. Round trips are the times that a \
device waits for an answer before it goes on, TCP's own handshakes included; calls that overlap \
count each.

Connecting is a new process without any TLS session to resume: TLS 1.3 with X25519MLKEM768 to the \
gateway, a JWT, TLS 1.3 to nats-server, and a catch-up request. Connecting again is what a process \
does that has lost its connections, with all that it asks and says then. Every other row is what \
comes on top of being connected.

| what | bytes up | bytes down | round trips |
|---|---:|---:|---:|
"
    .to_owned();
    for cost in costs {
        let Cost {
            what,
            up,
            down,
            round_trips,
        } = cost;
        let (up, down) = (thousands(*up), thousands(*down));
        writeln!(page, "| {what} | {up} | {down} | {round_trips} |").unwrap();
    }
    page
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[test]
fn rows_are_read_as_they_are_written() {
    let cost = Cost {
        what: "send a text".to_owned(),
        up: 1_234_567,
        down: 12,
        round_trips: 3,
    };
    let shown = page(std::slice::from_ref(&cost));
    let read: Vec<Cost> = shown.lines().filter_map(Cost::parse).collect();
    assert_eq!(read, [cost]);
}

#[test]
fn what_is_dearer_is_noticed() {
    let budget = Cost {
        what: "send a text".to_owned(),
        up: 10_000,
        down: 10_000,
        round_trips: 3,
    };
    assert!(!budget.exceeds(&budget));
    let dearer = |change: fn(&mut Cost)| {
        let mut cost = budget.clone();
        change(&mut cost);
        cost.exceeds(&budget)
    };
    assert!(!dearer(|cost| cost.up += 100));
    assert!(dearer(|cost| cost.up += 1_000));
    assert!(dearer(|cost| cost.down += 1_000));
    assert!(dearer(|cost| cost.round_trips += 5));
}
