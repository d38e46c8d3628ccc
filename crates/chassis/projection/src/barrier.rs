//! Stops a projection from applying events: to compare two stores at the same sequences, or because
//! an operator paused it.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_event::Envelope;
use headwater_nats::control::Pause;
use tokio::sync::{RwLock, RwLockReadGuard, watch};

/// How far a projection may apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Bound {
    /// No bound.
    #[default]
    None,
    /// Up to these sequences of the sources' streams; nothing in streams that are not named.
    Sequences(BTreeMap<String, u64>),
}

/// Stops a projection from applying events. Cheap to clone; open at first.
#[derive(Debug, Clone, Default)]
pub struct ApplyBarrier(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    limits: watch::Sender<Limits>,
    /// Shared while admitted events are being applied.
    applying: RwLock<()>,
}

/// What limits a projection; the stricter one counts.
#[derive(Debug, Default)]
struct Limits {
    bound: Bound,
    pause: Option<Pause>,
}

impl Limits {
    /// How many of the first of `events` may be applied now.
    fn fitting(&self, source: &str, events: &[Envelope]) -> usize {
        match &self.bound {
            _ if self.pause.is_some() => 0,
            Bound::None => events.len(),
            Bound::Sequences(upto) => {
                let upto = upto.get(source).copied().unwrap_or(0);
                // Events missing from the stream come before an event that has a sequence.
                let is_within = |event: &&Envelope| upto >= event.sequence.unwrap_or(0).max(1);
                events.iter().take_while(is_within).count()
            }
        }
    }
}

/// Opens the barrier when dropped, unless the projection is paused.
#[derive(Debug)]
pub struct BarrierGuard(ApplyBarrier);

impl Drop for BarrierGuard {
    fn drop(&mut self) {
        self.0.bind(Bound::None);
    }
}

impl ApplyBarrier {
    /// Stops the projection, once events that are being applied are done.
    pub async fn close(&self) -> BarrierGuard {
        let guard = BarrierGuard(self.clone());
        guard.stop().await;
        guard
    }

    fn bind(&self, bound: Bound) {
        self.0.limits.send_modify(|limits| limits.bound = bound);
    }

    /// The pause, if any.
    pub fn pause(&self) -> Option<Pause> {
        self.0.limits.borrow().pause.clone()
    }

    /// Pauses the projection, once events that are being applied are done; or resumes it.
    pub(super) async fn set_pause(&self, pause: Option<Pause>) {
        let is_paused = pause.is_some();
        self.0.limits.send_modify(|limits| limits.pause = pause);
        if is_paused {
            drop(self.0.applying.write().await);
        }
    }

    /// Takes from the front of `events` those that may be applied now, waiting for at least one.
    /// Apply them while the guard lives.
    pub(super) async fn admit(
        &self,
        source: &str,
        events: &mut Vec<Envelope>,
    ) -> (Vec<Envelope>, RwLockReadGuard<'_, ()>) {
        let mut limits = self.0.limits.subscribe();
        loop {
            limits.borrow_and_update();
            let applying = self.0.applying.read().await;
            let fitting = limits.borrow().fitting(source, events);
            if fitting > 0 || events.is_empty() {
                let later = events.split_off(fitting);
                return (std::mem::replace(events, later), applying);
            }
            drop(applying);
            if limits.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl BarrierGuard {
    /// Stops the projection where it is, once events that are being applied are done.
    pub async fn stop(&self) {
        self.let_up_to(&BTreeMap::new());
        drop(self.0.0.applying.write().await);
    }

    /// Lets the projection apply up to these sequences.
    pub fn let_up_to(&self, sequences: &BTreeMap<String, u64>) {
        self.0.bind(Bound::Sequences(sequences.clone()));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn events(sequences: impl IntoIterator<Item = u64>) -> Vec<Envelope> {
        let event = |sequence| Envelope {
            source: "sensors".into(),
            subject: "sensors.v1.read.0".into(),
            id: None,
            sequence: Some(sequence),
            payload: bytes::Bytes::new(),
            traceparent: None,
        };
        sequences.into_iter().map(event).collect()
    }

    fn sequences(events: &[Envelope]) -> Vec<u64> {
        events.iter().filter_map(|event| event.sequence).collect()
    }

    #[tokio::test]
    async fn an_open_gate_lets_everything_through() {
        let (barrier, mut waiting) = (ApplyBarrier::default(), events(1..=3));
        let (through, _applying) = barrier.admit("sensors", &mut waiting).await;
        assert_eq!((sequences(&through), waiting.len()), (vec![1, 2, 3], 0));
    }

    #[tokio::test]
    async fn a_held_gate_lets_through_up_to_its_bound_and_all_once_it_is_open() {
        let barrier = ApplyBarrier::default();
        let guard = barrier.close().await;
        let mut waiting = events(4..=6);
        assert!(
            barrier
                .admit("sensors", &mut waiting)
                .now_or_never()
                .is_none()
        );
        guard.let_up_to(&BTreeMap::from([("sensors".to_owned(), 5)]));
        let (through, applying) = barrier.admit("sensors", &mut waiting).await;
        assert_eq!(sequences(&through), [4, 5]);
        drop(applying);
        assert!(
            barrier
                .admit("sensors", &mut waiting)
                .now_or_never()
                .is_none()
        );
        drop(guard);
        let (through, _applying) = barrier.admit("sensors", &mut waiting).await;
        assert_eq!(sequences(&through), [6]);
    }

    #[tokio::test]
    async fn a_paused_gate_stays_closed_whoever_else_lets_go() {
        let (barrier, mut waiting) = (ApplyBarrier::default(), events(1..=2));
        let pause = Pause {
            since: 0,
            reason: "a test".to_owned(),
        };
        barrier.set_pause(Some(pause)).await;
        let guard = barrier.close().await;
        guard.let_up_to(&BTreeMap::from([("sensors".to_owned(), 2)]));
        assert!(
            barrier
                .admit("sensors", &mut waiting)
                .now_or_never()
                .is_none()
        );
        drop(guard);
        assert!(
            barrier
                .admit("sensors", &mut waiting)
                .now_or_never()
                .is_none()
        );
        barrier.set_pause(None).await;
        let (through, _applying) = barrier.admit("sensors", &mut waiting).await;
        assert_eq!(sequences(&through), [1, 2]);
    }

    #[tokio::test]
    async fn holding_waits_for_what_is_being_applied() {
        let barrier = ApplyBarrier::default();
        let mut waiting = events(1..=1);
        let (_through, applying) = barrier.admit("sensors", &mut waiting).await;
        assert!(
            barrier.close().now_or_never().is_none(),
            "it is being applied"
        );
        drop(applying);
        barrier.close().await;
    }
}
