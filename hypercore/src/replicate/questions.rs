//! What a remote asks, and how much of it is answered how soon.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use hypercore_wire::{Cancel, Request, Want};

use super::{
    limits::PeerLimits,
    load::{Bucket, Load, Part},
};

/// Windows told of that are remembered.
const REMEMBERED_WANTS: usize = 64;

/// A question of a remote.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Question {
    Request(Request),
    Cancel(Cancel),
    Want(Want),
    /// A request for what was not here when it came.
    Refusal(Request),
}

/// The questions of a remote about one core, in the order in which they are answered.
#[derive(Debug)]
pub(crate) struct Questions {
    limits: Arc<PeerLimits>,
    queue: VecDeque<Question>,
    /// Requests for what was not here, which wait to be refused.
    refused: VecDeque<Request>,
    /// The number of all, as a part of all on the connection.
    part: Part,
    wants: Bucket,
    /// The windows answered last, oldest first.
    told: VecDeque<(Want, Instant)>,
    refusals: Bucket,
}

impl Questions {
    pub(crate) fn new(load: &Load, now: Instant) -> Self {
        let limits = Arc::clone(&load.limits);
        Self {
            queue: VecDeque::new(),
            refused: VecDeque::new(),
            part: load.questions.part(),
            wants: Bucket::new(limits.wants, limits.wants_per_second, now),
            told: VecDeque::new(),
            refusals: Bucket::new(limits.refusals, limits.refusals_per_second, now),
            limits,
        }
    }

    /// Queues a refusal, unless too many wait: otherwise one who asks for nothing else would have everything
    /// wait.
    pub(crate) fn refuse_later(&mut self, request: Request) {
        if self.refused.len() < self.limits.waiting_refusals {
            // A byte was looked for already, and would count as asked for twice.
            self.refused.push_back(Request {
                bytes: 0,
                ..request
            });
            self.account();
        }
    }

    /// Queues a question. A window that waits for its answer already is not asked for twice.
    pub(crate) fn ask(&mut self, question: Question) {
        if let Question::Want(want) = &question
            && self
                .queue
                .iter()
                .any(|asked| matches!(asked, Question::Want(asked) if asked == want))
        {
            return;
        }
        self.queue.push_back(question);
        self.account();
    }

    /// The first question that may be answered now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Question> {
        let is_due = |due: Option<Instant>| due.is_none_or(|due| due <= now);
        let question = if !self.refused.is_empty() && self.refusals.ready_at() <= now {
            Question::Refusal(self.refused.pop_front()?)
        } else {
            let is_early = self.wants.ready_at() > now;
            // Of hundreds that wait none is looked at more closely.
            let waits = |question: &Question| is_early && matches!(question, Question::Want(_));
            let may_be_next = |question| !waits(question) && is_due(self.due(question));
            let position = self.queue.iter().position(may_be_next)?;
            self.queue.remove(position)?
        };
        self.account();
        if let Question::Want(want) = question {
            self.wants.take(now);
            self.told.retain(|(told, _)| *told != want);
            self.told.push_back((want, now));
            if self.told.len() > REMEMBERED_WANTS {
                self.told.pop_front();
            }
        }
        Some(question)
    }

    /// How many of the next questions, `most` at most, are requests for the blocks from `index` on, one
    /// by one. Wants, which may wait for long, do not count.
    pub(crate) fn requested_run(&self, index: u64, most: u64) -> u64 {
        let asks_for = |question: &Question, index| {
            let Question::Request(request) = question else {
                return false;
            };
            request.index == index && request.bytes == 0 && !request.hash
        };
        let queue = self.queue.iter();
        let others = queue.filter(|question| !matches!(question, Question::Want(_)));
        let asked = others.zip(index..index.saturating_add(most));
        let run = asked.take_while(|(question, index)| asks_for(question, *index));
        run.count() as u64
    }

    /// When the first of those that wait for their time may be answered.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let refusal = self.refused.front().map(|_| self.refusals.ready_at());
        let ready = self.wants.ready_at();
        let mut want = None;
        for due in self.queue.iter().filter_map(|question| self.due(question)) {
            want = Some(want.map_or(due, |want| due.min(want)));
            // None is due sooner.
            if due <= ready {
                break;
            }
        }
        want.into_iter().chain(refusal).min()
    }

    /// Takes one of the refusals that are allowed in a second. False if none is left: the request has to
    /// wait.
    pub(crate) fn take_refusal(&mut self, now: Instant) -> bool {
        self.refusals.take(now)
    }

    /// Whether so much is asked that no more should be read.
    pub(crate) fn is_congested(&self) -> bool {
        self.count() >= self.limits.requests.max(1)
            || self.part.total() >= self.limits.requests_of_connection.max(1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn count(&self) -> usize {
        self.queue.len().saturating_add(self.refused.len())
    }

    /// Counts them among those of the connection.
    fn account(&mut self) {
        self.part.set(self.count());
    }

    /// Panics if more is held than there should ever be. Beside what is read, a request that was kept
    /// may come.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn check_bounds(&self) {
        assert!(self.queue.len() <= self.limits.requests.saturating_add(1));
        assert!(self.told.len() <= REMEMBERED_WANTS);
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.refused.clear();
        self.account();
    }

    /// When a question may be answered; `None` is at once.
    fn due(&self, question: &Question) -> Option<Instant> {
        let want = match question {
            Question::Want(want) => want,
            Question::Request(_) | Question::Cancel(_) | Question::Refusal(_) => return None,
        };
        let told = self.told.iter().find(|(told, _)| told == want);
        let again = told.and_then(|(_, at)| at.checked_add(self.limits.want_pause));
        Some(self.wants.ready_at()).max(again)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn want(region: u64) -> Question {
        Question::Want(Want {
            start: region << 20,
            length: 1 << 20,
        })
    }

    /// Each was compared with all windows told of, for each request behind them.
    #[test]
    fn wants_that_wait_cost_little() {
        let start = Instant::now();
        let mut questions = Questions::new(&Load::default(), start);
        for region in 0..600 {
            questions.ask(want(region));
            questions.next(start);
        }
        let began = Instant::now();
        for index in 0..20_000 {
            questions.ask(Question::Request(request_of(index)));
            let next = questions.next(start);
            assert!(matches!(next, Some(Question::Request(request)) if request.index == index));
            assert!(questions.deadline() > Some(start));
        }
        assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    }

    fn request_of(index: u64) -> Request {
        Request {
            index,
            ..Request::default()
        }
    }

    fn request(index: u64) -> Question {
        Question::Request(request_of(index))
    }

    fn answered(questions: &mut Questions, now: Instant) -> usize {
        std::iter::from_fn(|| questions.next(now)).count()
    }

    #[test]
    fn wants_are_answered_at_a_rate_and_do_not_hold_up_requests() {
        let start = Instant::now();
        let mut questions = Questions::new(&Load::default(), start);
        (0..100).for_each(|region| questions.ask(want(region)));
        questions.ask(request(1));
        assert_eq!(answered(&mut questions, start), 33);
        assert_eq!(questions.deadline(), Some(start + SECOND / 16));
        assert_eq!(answered(&mut questions, start + SECOND), 16);
        assert_eq!(answered(&mut questions, start + 100 * SECOND), 32);
    }

    #[test]
    fn the_same_window_is_told_of_once_a_second() {
        let start = Instant::now();
        let mut questions = Questions::new(&Load::default(), start);
        (0..100).for_each(|_| questions.ask(want(7)));
        assert_eq!(answered(&mut questions, start), 1);
        questions.ask(want(7));
        questions.ask(want(8));
        assert_eq!(answered(&mut questions, start + SECOND / 2), 1, "only 8");
        assert_eq!(questions.deadline(), Some(start + SECOND));
        assert_eq!(answered(&mut questions, start + SECOND), 1);
        assert!(questions.is_empty());
    }

    #[test]
    fn questions_are_bounded_for_one_core_and_for_all_of_a_connection() {
        let (now, load) = (Instant::now(), Load::default());
        let mut cores: Vec<_> = (0..5).map(|_| Questions::new(&load, now)).collect();
        (0..640).for_each(|index| cores[0].ask(request(index)));
        assert!(cores[0].is_congested() && !cores[1].is_congested());
        for core in &mut cores[1..4] {
            (0..127).for_each(|index| core.ask(request(index)));
        }
        assert!(!cores[4].is_congested());
        (0..3).for_each(|index| cores[4].ask(request(index)));
        assert!(cores[4].is_congested(), "1024 of all cores");
        cores[0].clear();
        assert!(!cores[4].is_congested());
        cores.truncate(1);
        assert_eq!(load.questions.total(), 0);
    }

    #[test]
    fn questions_have_the_limits_that_were_set() {
        let (now, mut load) = (Instant::now(), Load::default());
        load.limits = Arc::new(
            PeerLimits::default()
                .requests(3)
                .requests_of_connection(4)
                .wants(2)
                .wants_per_second(1)
                .want_pause(5 * SECOND)
                .refusals(1)
                .refusals_per_second(2)
                .waiting_refusals(1),
        );
        let mut cores = [Questions::new(&load, now), Questions::new(&load, now)];
        (0..2).for_each(|index| cores[0].ask(request(index)));
        cores[1].ask(request(0));
        assert!(!cores[0].is_congested() && !cores[1].is_congested());
        cores[0].ask(request(2));
        assert!(cores[0].is_congested() && cores[1].is_congested());

        let questions = &mut cores[1];
        questions.clear();
        (0..3).for_each(|region| questions.ask(want(region)));
        assert_eq!(answered(questions, now), 2);
        assert_eq!(answered(questions, now + SECOND), 1);
        questions.ask(want(0));
        assert_eq!(questions.deadline(), Some(now + 5 * SECOND));

        questions.clear();
        assert!(questions.take_refusal(now) && !questions.take_refusal(now + SECOND / 3));
        (0..3).for_each(|index| questions.refuse_later(request_of(index)));
        assert_eq!(questions.deadline(), Some(now + SECOND / 2));
        assert_eq!(answered(questions, now + SECOND), 1);
    }

    #[test]
    fn a_run_ends_at_the_first_other_question() {
        let mut questions = Questions::new(&Load::default(), Instant::now());
        (5..8).for_each(|index| questions.ask(request(index)));
        let others = [
            request(9),
            Question::Request(Request {
                index: 8,
                hash: true,
                ..Request::default()
            }),
            Question::Request(Request {
                index: 8,
                bytes: 1,
                ..Request::default()
            }),
        ];
        assert_eq!(questions.requested_run(6, 9), 0);
        for other in others {
            questions.ask(other);
            assert_eq!(questions.requested_run(5, 9), 3, "{other:?}");
            questions.queue.pop_back();
        }
        questions.ask(request(8));
        assert_eq!(questions.requested_run(5, 9), 4);
    }

    /// Each of the blocks was read by itself.
    #[test]
    fn what_waits_for_its_time_does_not_end_a_run() {
        let mut questions = Questions::new(&Load::default(), Instant::now());
        questions.ask(want(0));
        questions.refuse_later(request_of(3));
        questions.ask(request(5));
        questions.ask(want(1));
        questions.ask(request(6));
        assert_eq!(questions.requested_run(5, 9), 2);
    }

    #[test]
    fn refusals_wait_for_their_time_and_do_not_hold_up_requests() {
        let start = Instant::now();
        let mut questions = Questions::new(&Load::default(), start);
        while questions.take_refusal(start) {}
        questions.refuse_later(request_of(7));
        questions.ask(request(1));
        assert_eq!(answered(&mut questions, start), 1);
        let due = questions.deadline().expect("one is left");
        assert_eq!(due, start + SECOND / 64);
        let next = questions.next(due);
        assert!(
            matches!(next, Some(Question::Refusal(it)) if it.index == 7),
            "{next:?}"
        );
        assert!(questions.take_refusal(due) && questions.is_empty());
        (0..10_000).for_each(|index| questions.refuse_later(request_of(index)));
        assert!(!questions.is_congested(), "others are heard");
        assert_eq!(questions.refused.len(), 512);
    }

    #[test]
    fn so_many_requests_are_refused_in_a_second() {
        let now = Instant::now();
        let mut questions = Questions::new(&Load::default(), now);
        let mut refused = |now| (0..1000).filter(|_| questions.take_refusal(now)).count();
        assert_eq!((refused(now), refused(now + SECOND / 2)), (64, 32));
    }
}
