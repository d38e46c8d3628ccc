//! `cargo dev`: builds, starts, seeds and supervises the whole system.
//!
//! Needs cargo, a C compiler and python3. Progress and logs go to stderr, the summary to stdout.

mod args;
mod build;
mod catalogue;
mod child;
mod control;
mod data;
mod http;
mod nats;
mod ports;
mod ready;
mod room;
mod screen;
mod seed;
mod service;
mod signals;
mod summary;
mod system;

use std::convert::Infallible;
use std::process::ExitCode;

use anyhow::Context as _;
use rustix::fs::Mode;

pub use args::{Args, Output};

use data::Data;
use room::Room;
use screen::Screen;
use service::Service;
use signals::Signals;
use summary::Summary;
use system::System;

/// Runs the command and prints its error.
pub async fn main(args: Args) -> ExitCode {
    let screen = Screen::new();
    match run(&args, screen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs everything until a signal arrives or a process ends, then stops the rest.
async fn run(args: &Args, screen: Screen) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("listen for signals")?;
    let data = Data::open(&args.data)?;
    let mut system = System::new(screen);
    let outcome = tokio::select! {
        biased;
        () = signals.next() => Ok(()),
        outcome = up(args, &data, &mut system, screen) => outcome.map(|never| match never {}),
    };
    outcome.and(system.stop(&mut signals).await)
}

/// Starts and seeds the system, then waits until one of its processes ends.
async fn up(
    args: &Args,
    data: &Data,
    system: &mut System,
    screen: Screen,
) -> anyhow::Result<Infallible> {
    Service::load()?;
    let claim = ports::claim(args)?;
    let server = nats::find(args, screen).await?;
    let binaries = build::services(args.release, screen).await?;
    if args.fresh {
        data.clear()?;
    }
    // Only now: cargo's build output may be for other users. Everything that services and broker
    // create is in the data folder.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let (ports, listener) = claim.release();
    system.start_broker(server, args, data).await?;
    if listener.is_some() {
        system.open_links(&ports).await;
    }
    system.start_services(&binaries, &ports, args, data)?;

    let (running, nats) = (system.running(&ports), system.nats(args));
    let (control, commands) = control::channel();
    let room = listener.map(|listener| Room {
        listener,
        control,
        links: system.links(),
        ports: ports.clone(),
        nats_url: nats.0.clone(),
        screen,
    });
    let prepare = async {
        ready::wait(&running).await?;
        let demo = if args.no_seed {
            None
        } else {
            seed::all(ports, screen).await?
        };
        let room = room.map(Room::open).transpose()?;
        let url = room.as_ref().map(room::Open::url);
        Summary::new(running, nats, data, demo.as_ref(), url).print(args.output)?;
        if let Some(room) = room {
            room.serve(demo.as_ref()).await?;
        }
        std::future::pending().await
    };
    tokio::select! {
        ended = system.supervise(commands) => ended,
        failed = prepare => failed,
    }
}
