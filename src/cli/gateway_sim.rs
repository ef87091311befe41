//! `gatebell gateway-sim`: an SMS gateway and an app backend that exist only here.
//!
//! For integrators, who try a connector or a configuration without a contract, and for load testers. What it took goes to
//! the log as NDJSON, phone numbers included: it is for made-up cities.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use gatebell_gateway_sim::{GatewaySim, SimConfig, SimLog};

use super::{Globals, tokio_runtime};

/// How the simulator behaves.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration of the simulator (TOML); without one, the defaults, which config/gateway-sim.toml lists
    // Goes before the global option of the same name, which is another file.
    #[arg(id = "config", long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8099")]
    listen: SocketAddr,
    /// Append every message, receipt and push to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Draw other fates: goes before the configuration's seed
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

pub(crate) fn run(args: &Args, _globals: &Globals) -> anyhow::Result<ExitCode> {
    let mut config = match &args.config {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the simulator's configuration {}", file.display()))?;
            SimConfig::parse(&text)
                .with_context(|| format!("the simulator's configuration {} has mistakes", file.display()))?
        }
        None => SimConfig::default(),
    };
    config.seed = args.seed.unwrap_or(config.seed);
    let log = tokio_runtime()?.block_on(simulate(config, args))?;
    tell(&log)?;
    Ok(ExitCode::SUCCESS)
}

async fn simulate(config: SimConfig, args: &Args) -> anyhow::Result<SimLog> {
    let seed = config.seed;
    let sim = GatewaySim::start_logging(config, args.listen, args.log.as_deref()).await?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "SMS gateway (Mitake's protocol)  {}", sim.mitake_url())?;
    writeln!(output, "app backend (signed webhook)     {}", sim.app_url())?;
    writeln!(output, "seed {seed}; Ctrl-C ends it")?;
    output.flush()?;
    drop(output);
    stop_asked().await?;
    Ok(sim.stop().await)
}

/// Waits for Ctrl-C or, where there is such a thing, SIGTERM.
async fn stop_asked() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for Ctrl-C"),
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.context("cannot listen for Ctrl-C")
}

fn tell(log: &SimLog) -> anyhow::Result<()> {
    let counts = &log.counts;
    let delivered = log.messages.iter().filter(|message| message.is_delivered()).count();
    let mut output = std::io::stdout().lock();
    writeln!(output, "messages taken {}, delivered {delivered}", log.messages.len())?;
    writeln!(
        output,
        "submitted {}, recognised as repeated {}, throttled {}, beyond the rate {}, at most {} a second",
        counts.submitted, counts.duplicates, counts.throttled, counts.overruns, counts.peak_per_s
    )?;
    writeln!(
        output,
        "callbacks {}, not answered as they should be {}",
        counts.callbacks, counts.callbacks_unanswered
    )?;
    writeln!(
        output,
        "pushes taken {}, requests with a wrong signature {}",
        log.pushes.len(),
        counts.signature_failures
    )?;
    Ok(())
}
