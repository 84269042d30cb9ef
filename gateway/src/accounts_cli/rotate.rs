//! `accounts rotate`: new signing keys, while everybody stays connected.
//!
//! Two steps each: first the new keys, beside the old ones; later `--finish`,
//! which drops the old ones and refuses while somebody depends on them.

use std::time::{Duration, Instant};

use anyhow::bail;
use sotto_jwt_accounts::keystore::{Accounts, Identity, KeyStore};
use sotto_jwt_accounts::{connections_by, held_accounts, trusted_operators};
use sotto_proto::OrgName;
use sotto_service::{Layout, ServerConfig};

use super::{push_all, system};
use crate::provision;

/// How long all servers together may take to have what was pushed.
const PUSHED: Duration = Duration::from_secs(5);

/// Whose keys.
#[derive(Debug, clap::Subcommand)]
pub(super) enum RotateCommand {
    /// The keys that sign an organisation's devices, relays and gateways.
    Org {
        /// The organisation.
        org: OrgName,
        #[command(flatten)]
        step: Step,
    },
    /// The keys that sign who commands the NATS servers.
    System {
        #[command(flatten)]
        step: Step,
    },
    /// The operator's key, which signs every account. Every NATS server must be
    /// started anew after each step.
    Operator {
        /// A new identity for the operator, too.
        #[arg(long, conflicts_with = "finish")]
        identity: bool,
        #[command(flatten)]
        step: Step,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Step {
    /// Drop the old keys: what they signed is void.
    #[arg(long)]
    finish: bool,
    /// With --finish: even if somebody still depends on them.
    #[arg(long, requires = "finish")]
    force: bool,
}

/// Does one step.
pub(super) async fn run(
    layout: &Layout,
    config: &ServerConfig,
    command: &RotateCommand,
    now_ms: i64,
) -> anyhow::Result<()> {
    let keys = provision::open_keys(layout, config)?;
    let rotation = Rotation {
        layout,
        config,
        keys: &keys,
        now_ms,
    };
    match command {
        RotateCommand::Org { org, step } => rotation.accounts(Accounts::Org(org), step).await,
        RotateCommand::System { step } => rotation.accounts(Accounts::System, step).await,
        RotateCommand::Operator { step, .. } if step.finish => {
            rotation.finish_operator(step.force).await
        }
        RotateCommand::Operator { identity, .. } => rotation.prepare_operator(*identity),
    }
}

struct Rotation<'a> {
    layout: &'a Layout,
    config: &'a ServerConfig,
    keys: &'a KeyStore,
    now_ms: i64,
}

impl Rotation<'_> {
    async fn accounts(&self, accounts: Accounts<'_>, step: &Step) -> anyhow::Result<()> {
        let system = system(self.layout, self.config).await?;
        if step.finish {
            if !step.force {
                self.nobody_waits(&system, accounts).await?;
            }
            let jwts = self.keys.drop_old_keys(accounts, self.now_ms)?;
            return push_all(&system, jwts).await;
        }
        let services = provision::services(self.config);
        let jwts = self.keys.rotate(accounts, services, self.now_ms)?;
        push_all(&system, jwts).await?;
        match accounts {
            Accounts::Org(org) => provision::issue_credentials(self.layout, self.keys, org),
            Accounts::System => provision::issue_system_credentials(self.layout, self.keys),
        }
    }

    /// Refuses while a JWT by an old key may be in use.
    async fn nobody_waits(
        &self,
        system: &async_nats::Client,
        accounts: Accounts<'_>,
    ) -> anyhow::Result<()> {
        let Some(old) = self.keys.old_keys(accounts)? else {
            return Ok(());
        };
        let mut waiting = Vec::new();
        let seconds = old.unused_s - self.now_ms.div_euclid(1_000);
        if seconds > 0 {
            let minutes = seconds.div_euclid(60) + 1;
            waiting.push(format!(
                "devices may hold JWTs by an old key for {minutes} more minutes"
            ));
        }
        for account in &old.accounts {
            for server in connections_by(system, account, &old.keys).await? {
                for (who, connections) in server.connections {
                    let server = &server.server;
                    // Devices give no name.
                    let who = if who.is_empty() { "devices" } else { &who };
                    waiting.push(format!(
                        "connections by an old key on {server}: {connections} of {who}"
                    ));
                }
            }
        }
        refuse(&waiting)
    }

    #[expect(clippy::print_stdout, reason = "what is to be done next")]
    fn prepare_operator(&self, identity: bool) -> anyhow::Result<()> {
        let identity = match identity {
            true => Identity::Draw,
            false => Identity::Keep,
        };
        self.keys.prepare_operator(identity, self.now_ms)?;
        println!(
            "Restart the relay of every node now, one after the other; then finish with \
             `sotto-gateway accounts rotate operator --finish`."
        );
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "what is to be done next")]
    async fn finish_operator(&self, force: bool) -> anyhow::Result<()> {
        let system = system(self.layout, self.config).await?;
        if let Some(next) = self.keys.next_operator_key()?
            && !force
        {
            let servers = trusted_operators(&system).await?.into_iter();
            let behind = servers.filter(|server| !server.has(&next));
            let waiting = behind.map(|server| {
                let server = server.server;
                format!("{server} does not know the new key: restart its relay")
            });
            refuse(&waiting.collect::<Vec<_>>())?;
        }
        push_all(&system, self.keys.take_next_key(self.now_ms)?).await?;
        if !force {
            refuse(&self.accounts_behind(&system).await?)?;
        }
        let jwt = self.keys.drop_old_operator_keys(self.now_ms)?;
        match jwt == self.keys.operator_jwt() {
            true => println!("There is no old key."),
            false => println!(
                "Restart the relay of every node once more: until then it trusts the old key."
            ),
        }
        Ok(())
    }

    /// Where an account is not as the new key of the operator signed it, even
    /// after a while.
    async fn accounts_behind(&self, system: &async_nats::Client) -> anyhow::Result<Vec<String>> {
        let begun = Instant::now();
        loop {
            let mut behind = Vec::new();
            for account in self.keys.resolver_preload()? {
                for held in held_accounts(system, &account.id).await? {
                    if held.version.is_some() && !held.is(&account.jwt) {
                        behind.push(format!("{} has an older {}", held.server, account.id));
                    }
                }
            }
            if behind.is_empty() || begun.elapsed() > PUSHED {
                return Ok(behind);
            }
        }
    }
}

fn refuse(waiting: &[String]) -> anyhow::Result<()> {
    if waiting.is_empty() {
        return Ok(());
    }
    let waiting = waiting.join("; ");
    bail!("it is too early: {waiting}. Try again later, or use --force to cut them off")
}
