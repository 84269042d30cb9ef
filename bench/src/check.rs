//! How long the policy takes to answer, over users and rooms drawn at random.

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sotto_jwt_accounts::directory::Scope;
use sotto_jwt_accounts::policy::{self, Asking, Factor, Manage, Post, Proven, Read};

use crate::figures::{Figures, Goal, percentile};
use crate::org::{NOW_MS, Org};

const CHECKS: usize = 200_000;

pub(crate) fn measure(org: &Org, figures: &mut Figures) {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let proven = Proven::none().with(Factor::Totp, NOW_MS - 1_000);
    let mut samples = Vec::with_capacity(CHECKS);
    let mut allowed = 0_usize;
    for number in 0..CHECKS {
        let place = rng.gen_range(0..org.users.len());
        let Some(user) = org.users.get(place) else {
            continue;
        };
        // Half of what is asked is of the user's own rooms.
        let own = org.state.rooms_of(user);
        let own = own.first().filter(|_| number % 2 == 0);
        let place = rng.gen_range(0..org.rooms.len());
        let room = own.map(|room| room.address.room);
        let Some(room) = room.or_else(|| org.rooms.get(place).copied()) else {
            continue;
        };
        let asking = Asking {
            user,
            proven: &proven,
            now_ms: NOW_MS,
        };
        let scope = Scope::Room(room);
        let state = &org.state;
        let started = Instant::now();
        let answer = match number % 3 {
            0 => policy::check(state, asking, Read, &room).is_ok(),
            1 => policy::check(state, asking, Post, &room).is_ok(),
            _ => policy::check(state, asking, Manage, &scope).is_ok(),
        };
        samples.push(started.elapsed());
        allowed += usize::from(answer);
    }
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = allowed as f64 / CHECKS as f64 * 100.0;
    figures.note("checks that were allowed", share, "%", None);
    let goal = Some(Goal::AtMost(20.0));
    figures.note("check(), p50", percentile(&mut samples, 0.50), "us", goal);
    let goal = Some(Goal::AtMost(100.0));
    figures.note("check(), p99", percentile(&mut samples, 0.99), "us", goal);
}
