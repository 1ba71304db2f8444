//! A runtime with virtual time, for the simulator: one thread, an order of tasks that is drawn from
//! a seed, and a clock that jumps to the next timer as soon as nobody has anything left to do.
//!
//! While a [`Runtime`] exists, [`super`] uses it on this thread in place of the clock, the timers
//! and the threads of the system, so that a run depends on nothing but its seed. A task whose
//! wake-up was forgotten sleeps here until a timer of its own wakes it, however much goes on.

pub(crate) mod network;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

/// Polls without the clock moving after which tasks are said to wake each other for ever.
const LIVELOCK: u64 = 20_000;

/// The longest that work on the disk takes.
const DISK: Duration = Duration::from_millis(20);

thread_local! {
    static CURRENT: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

/// The runtime of this thread, if there is one.
pub(crate) fn current() -> Option<Runtime> {
    CURRENT.with_borrow(Clone::clone)
}

/// Ends after `time`.
pub(crate) async fn sleep(time: Duration) {
    // The runtime stays on its thread, and this future may be asked to be able to leave it.
    let until = current().map(|runtime| runtime.now() + time);
    poll_fn(|_| match (current(), until) {
        (Some(runtime), Some(until)) => runtime.poll_timer(until),
        _ => Poll::Ready(()),
    })
    .await;
}

/// Does what waits for a disk, after a while.
pub(crate) async fn unblock<T>(work: impl FnOnce() -> T) -> T {
    let time = current().map_or(Duration::ZERO, |runtime| runtime.duration_below(DISK));
    sleep(time).await;
    work()
}

/// A handle to the runtime.
#[derive(Clone)]
pub(crate) struct Runtime {
    state: Rc<State>,
}

struct State {
    start: Instant,
    now: Cell<Instant>,
    random: RefCell<Random>,
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    last_task: Cell<u64>,
    polls: Cell<u64>,
    /// The task that is being polled.
    current: Cell<Option<TaskId>>,
    timers: RefCell<BTreeSet<(Instant, TaskId)>>,
    ready: Arc<Mutex<Vec<TaskId>>>,
}

/// Names one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskId(u64);

struct Task {
    /// `None` while it is being polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    id: TaskId,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(self.id);
        }
    }
}

impl Runtime {
    /// Runs `simulation`, which drives the runtime it is given.
    pub(crate) fn run<T>(seed: u64, simulation: impl FnOnce(&Self) -> T) -> T {
        let start = Instant::now();
        let runtime = Self {
            state: Rc::new(State {
                start,
                now: Cell::new(start),
                random: RefCell::new(Random::new(seed)),
                tasks: RefCell::default(),
                last_task: Cell::new(0),
                polls: Cell::new(0),
                current: Cell::new(None),
                timers: RefCell::default(),
                ready: Arc::default(),
            }),
        };
        let before = CURRENT.replace(Some(runtime.clone()));
        assert!(before.is_none(), "one simulation at a time");
        let end = End(runtime);
        simulation(&end.0)
    }

    /// How often a task was polled.
    pub(crate) fn polls(&self) -> u64 {
        self.state.polls.get()
    }

    pub(crate) fn now(&self) -> Instant {
        self.state.now.get()
    }

    /// How long this runs, in virtual time.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now() - self.state.start
    }

    /// A random number below `end`; 0 if that is 0.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.state.random.borrow_mut().below(end)
    }

    /// True once in `times` on average.
    pub(crate) fn once_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn duration_below(&self, end: Duration) -> Duration {
        Duration::from_micros(self.below(end.as_micros() as u64))
    }

    /// Starts a task.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> TaskId {
        let id = TaskId(self.state.last_task.get() + 1);
        self.state.last_task.set(id.0);
        let waker = Arc::new(TaskWaker {
            id,
            queued: AtomicBool::new(false),
            ready: Arc::clone(&self.state.ready),
        });
        let task = Task {
            future: Some(Box::pin(future)),
            waker: Arc::clone(&waker),
        };
        self.state.tasks.borrow_mut().insert(id, task);
        waker.wake();
        id
    }

    /// Drops a task wherever it is.
    pub(crate) fn abort(&self, id: TaskId) {
        let task = self.state.tasks.borrow_mut().remove(&id);
        drop(task);
    }

    pub(crate) fn is_running(&self, id: TaskId) -> bool {
        self.state.tasks.borrow().contains_key(&id)
    }

    /// Wakes the task that is being polled at `at`.
    pub(crate) fn wake_at(&self, at: Instant) {
        let current = self.state.current.get().expect("a task is being polled");
        self.state.timers.borrow_mut().insert((at, current));
    }

    /// A timer: ready once `at` has passed.
    pub(crate) fn poll_timer(&self, at: Instant) -> Poll<()> {
        if self.now() >= at {
            return Poll::Ready(());
        }
        self.wake_at(at);
        Poll::Pending
    }

    /// Runs all tasks until `limit` has passed or `done` says so; whether it did.
    pub(crate) fn run_until(&self, limit: Instant, mut done: impl FnMut() -> bool) -> bool {
        let mut polls = 0;
        loop {
            while let Some(id) = self.next_ready() {
                self.poll(id);
                polls += 1;
                self.state.polls.set(self.state.polls.get() + 1);
                assert!(polls < LIVELOCK, "tasks wake each other for ever");
            }
            if done() {
                return true;
            }
            let next = self.state.timers.borrow().first().map(|&(at, _)| at);
            let next = next.filter(|&at| at <= limit);
            let moved = next.unwrap_or(limit);
            if moved > self.now() {
                self.state.now.set(moved);
                polls = 0;
            }
            if next.is_none() {
                return false;
            }
            self.fire_timers();
        }
    }

    /// Runs all tasks for `time`.
    pub(crate) fn run_for(&self, time: Duration) {
        self.run_until(self.now() + time, || false);
    }

    fn next_ready(&self) -> Option<TaskId> {
        let mut ready = self
            .state
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let chosen = self.below(ready.len() as u64) as usize;
        (!ready.is_empty()).then(|| ready.swap_remove(chosen))
    }

    fn poll(&self, id: TaskId) {
        let Some((mut future, waker)) = self.take(id) else {
            return;
        };
        self.state.current.set(Some(id));
        let polled = future
            .as_mut()
            .poll(&mut Context::from_waker(&Waker::from(waker)));
        self.state.current.set(None);
        if polled.is_ready() {
            self.abort(id);
        } else if let Some(task) = self.state.tasks.borrow_mut().get_mut(&id) {
            task.future = Some(future);
        }
    }

    #[expect(clippy::type_complexity, reason = "the two halves of a task")]
    fn take(&self, id: TaskId) -> Option<(Pin<Box<dyn Future<Output = ()>>>, Arc<TaskWaker>)> {
        let mut tasks = self.state.tasks.borrow_mut();
        let task = tasks.get_mut(&id)?;
        task.waker.queued.store(false, Ordering::Release);
        Some((task.future.take()?, Arc::clone(&task.waker)))
    }

    fn fire_timers(&self) {
        let now = self.now();
        let mut timers = self.state.timers.borrow_mut();
        while let Some(&(at, id)) = timers.first()
            && at <= now
        {
            timers.pop_first();
            if let Some(task) = self.state.tasks.borrow().get(&id) {
                Arc::clone(&task.waker).wake();
            }
        }
    }
}

/// More tasks than a simulation has when it ends.
const MAX_DROPPED: usize = 1 << 16;

/// Takes the runtime off the thread again, however the simulation ends.
struct End(Runtime);

impl Drop for End {
    fn drop(&mut self) {
        // What a task does when it is dropped still belongs to the simulation.
        let tasks = &self.0.state.tasks;
        let next = || tasks.borrow_mut().pop_first();
        let dropped = std::iter::from_fn(next).take(MAX_DROPPED).count();
        if dropped == MAX_DROPPED {
            // After a panic, work that was cut short may ask for its next turn again and again.
            std::mem::forget(tasks.take());
        }
        CURRENT.take();
    }
}

/// The generator SplitMix64 of Steele, Lea and Flood.
struct Random(u64);

impl Random {
    const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}
