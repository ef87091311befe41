//! A process that sleeps: as a paused virtual machine or a stopped container, nothing of it runs for a while, and then all
//! of it runs on with what it had in hand. Its timers are late then; what it had sent goes its way meanwhile.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::locked;

#[derive(Default)]
struct State {
    sleeps: bool,
    waiting: BTreeMap<u64, Waker>,
    next_place: u64,
    naps: u64,
}

/// Puts one process to sleep. Clones share the process.
#[derive(Clone, Default)]
pub struct Doze {
    state: Arc<Mutex<State>>,
}

impl Doze {
    /// From the next poll on nothing of the process runs until so much time has passed. Nothing where it sleeps already.
    pub fn fall_asleep(&self, lasting: Duration) {
        let mut state = locked(&self.state);
        if state.sleeps {
            return;
        }
        state.sleeps = true;
        state.naps += 1;
        drop(state);
        let doze = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(lasting).await;
            doze.wake_up();
        });
    }

    fn wake_up(&self) {
        let mut state = locked(&self.state);
        state.sleeps = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_values().for_each(Waker::wake);
    }

    /// How often the process fell asleep.
    pub fn naps(&self) -> u64 {
        locked(&self.state).naps
    }

    /// `task` as a part of the process.
    pub fn part<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        let mut state = locked(&self.state);
        let place = state.next_place;
        state.next_place += 1;
        drop(state);
        Part { doze: self.clone(), place, task: Box::pin(task) }
    }
}

struct Part<F> {
    doze: Doze,
    place: u64,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Part<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let place = self.place;
        let mut state = locked(&self.doze.state);
        if state.sleeps {
            state.waiting.insert(place, context.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.task.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sleeping_process_finds_its_timers_late() {
        let doze = Doze::default();
        let started = tokio::time::Instant::now();
        let task = doze.part(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            started.elapsed()
        });
        doze.fall_asleep(Duration::from_secs(30));
        let woken_after = task.await;
        assert!(woken_after >= Duration::from_secs(30), "{woken_after:?}");
    }
}
