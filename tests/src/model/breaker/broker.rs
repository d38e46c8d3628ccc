//! The broker and its store.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{Breaker, State};

impl Breaker {
    pub(super) fn kill_broker(&mut self) -> anyhow::Result<bool> {
        if self.broker == State::Down {
            return Ok(false);
        }
        self.world.broker.kill().context("kill the broker")?;
        self.broker = State::Down;
        Ok(true)
    }

    pub(super) fn start_broker(&mut self) -> anyhow::Result<bool> {
        if self.broker != State::Down {
            return Ok(false);
        }
        self.world.broker.restart().context("start the broker")?;
        self.broker = State::Up;
        Ok(true)
    }

    pub(super) fn pause_broker(&mut self) -> anyhow::Result<bool> {
        if self.broker != State::Up {
            return Ok(false);
        }
        self.world.broker.pause().context("pause the broker")?;
        self.broker = State::Paused;
        Ok(true)
    }

    pub(super) fn resume_broker(&mut self) -> anyhow::Result<bool> {
        if self.broker != State::Paused {
            return Ok(false);
        }
        self.world.broker.resume().context("resume the broker")?;
        self.broker = State::Up;
        Ok(true)
    }

    /// Does `work` while the broker is down; kills it for that if it runs.
    pub(super) fn with_broker_down(
        &mut self,
        work: impl FnOnce(&Self) -> std::io::Result<()>,
    ) -> anyhow::Result<bool> {
        let was_down = self.broker == State::Down;
        self.kill_broker()?;
        work(self).context("change the broker's store")?;
        if !was_down {
            self.start_broker()?;
        }
        Ok(true)
    }

    pub(super) fn store(&self) -> PathBuf {
        self.world.broker.store().join("jetstream")
    }

    pub(super) fn copy(&self) -> PathBuf {
        self.world.folder().join("broker-copy")
    }
}
