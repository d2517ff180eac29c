//! Memory models as axioms: which outcomes of a test each allows.
//!
//! Arm's is that of the Arm ARM, B2.3: an execution is allowed if it is consistent for each location (internal
//! visibility), its read-modify-writes are atomic, and *Ordered-before* has no cycle (external visibility). The
//! relations have the names that they have there. What is ordered within a thread depends on the program alone; what
//! threads see of each other, on which write each read reads from and on the order of writes to each location, all of
//! which are enumerated.

use std::collections::BTreeSet;

use crate::test::{Barrier, Link, Test, What};

/// Which model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// The Arm memory model.
    Arm,
    /// Sequential consistency.
    Sequential,
    /// x86-TSO, of the host code that the translator makes: a fence for DMB and DSB of all accesses and behind each
    /// store-release, locked read-modify-writes, else plain loads and stores.
    Tso,
}

/// A read or a write.
#[derive(Clone, Copy, Debug)]
struct Event {
    /// `None` for the initial values.
    thread: Option<usize>,
    /// Number of the operation in its thread.
    op: usize,
    location: usize,
    write: bool,
    value: u8,
    what: What,
}

impl Event {
    fn is(&self, write: bool) -> bool {
        self.write == write
    }

    fn acquire(&self) -> bool {
        !self.write && matches!(self.what, What::LoadAcquire | What::Swap(true, _) | What::Exclusive(true, _))
    }

    fn rcpc(&self) -> bool {
        !self.write && self.what == What::LoadRcpc
    }

    fn release(&self) -> bool {
        self.write && matches!(self.what, What::StoreRelease | What::Swap(_, true) | What::Exclusive(_, true))
    }

    fn in_rmw(&self) -> bool {
        matches!(self.what, What::Swap(..) | What::Exclusive(..))
    }
}

/// A relation over events: bit `b` of row `a` if a → b.
#[derive(Clone, Debug)]
struct Relation(Vec<u32>);

impl Relation {
    fn new(events: usize) -> Self {
        Self(vec![0; events])
    }

    fn add(&mut self, a: usize, b: usize) {
        self.0[a] |= 1 << b;
    }

    fn has(&self, a: usize, b: usize) -> bool {
        self.0[a] >> b & 1 != 0
    }

    fn or(mut self, other: &Self) -> Self {
        for (row, more) in self.0.iter_mut().zip(&other.0) {
            *row |= more;
        }
        self
    }

    fn is_acyclic(&self) -> bool {
        // Takes away what nothing leads to, until nothing is left or all have something before them.
        let mut left: u32 = (1 << self.0.len()) - 1;
        loop {
            let mut reached = 0;
            for (n, row) in self.0.iter().enumerate() {
                if left >> n & 1 != 0 {
                    reached |= row;
                }
            }
            let next = left & reached;
            if next == left {
                return left == 0;
            }
            left = next;
        }
    }
}

/// A test's events and what is ordered whatever happens.
struct Program<'a> {
    test: &'a Test,
    events: Vec<Event>,
    /// Program order.
    po: Relation,
    /// Program order at one location.
    po_loc: Relation,
    /// The read and the write of each read-modify-write.
    rmw: Vec<(usize, usize)>,
    /// What the model orders within a thread.
    local: Relation,
}

fn events(test: &Test) -> Vec<Event> {
    let mut events = Vec::new();
    for location in 0..test.locations() {
        events.push(Event { thread: None, op: 0, location, write: true, value: 0, what: What::Store });
    }
    for (t, ops) in test.threads.iter().enumerate() {
        for (n, op) in ops.iter().enumerate() {
            let event = |write| Event {
                thread: Some(t),
                op: n,
                location: op.location,
                write,
                value: op.value,
                what: op.what,
            };
            events.extend(op.what.reads().then(|| event(false)));
            events.extend(op.what.writes().then(|| event(true)));
        }
    }
    events
}

impl<'a> Program<'a> {
    fn new(test: &'a Test, model: Model) -> Self {
        let events = events(test);
        let n = events.len();
        assert!(n < 32, "too many events");
        let mut p = Self {
            test,
            events,
            po: Relation::new(n),
            po_loc: Relation::new(n),
            rmw: Vec::new(),
            local: Relation::new(n),
        };
        for a in 0..n {
            for b in a + 1..n {
                let (ea, eb) = (&p.events[a], &p.events[b]);
                if ea.thread.is_none() || ea.thread != eb.thread {
                    continue;
                }
                p.po.add(a, b);
                if ea.location == eb.location {
                    p.po_loc.add(a, b);
                }
                if ea.op == eb.op {
                    p.rmw.push((a, b));
                }
            }
        }
        p.local = match model {
            Model::Arm => p.locally_ordered(),
            Model::Sequential => p.po.clone(),
            Model::Tso => p.store_order(),
        };
        p
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let n = self.events.len();
        (0..n).flat_map(move |a| (a + 1..n).map(move |b| (a, b))).filter(|&(a, b)| self.po.has(a, b))
    }

    /// The links of the thread of `a` and `b` that lie between the two.
    fn links(&self, a: usize, b: usize) -> impl Iterator<Item = Link> + '_ {
        let ops = &self.test.threads[self.events[a].thread.unwrap_or(0)];
        ops[self.events[a].op + 1..=self.events[b].op].iter().map(|op| op.link)
    }

    /// Everything that depends on the read `a`: with the operation that carries the dependency being `op`, its link.
    fn dependency(&self, a: usize, op: usize) -> Option<Link> {
        let event = &self.events[a];
        let link = self.test.threads[event.thread?].get(op)?.link;
        (event.is(false) && event.op + 1 == op).then_some(link)
    }

    /// Local read successor: `a` is the last write before the read `b` to its location.
    fn lrs(&self, a: usize, b: usize) -> bool {
        let between = |&c: &usize| self.events[c].write && self.po_loc.has(a, c) && self.po_loc.has(c, b);
        self.events[a].write
            && !self.events[b].write
            && self.po_loc.has(a, b)
            && !(a + 1..b).any(|c| between(&c))
    }

    /// *Locally-ordered-before*, not closed.
    fn locally_ordered(&self) -> Relation {
        let mut lob = Relation::new(self.events.len());
        for (a, b) in self.pairs() {
            if self.po_loc.has(a, b) && self.events[b].write
                || self.dependency_ordered(a, b)
                || self.atomic_ordered(a, b)
                || self.barrier_ordered(a, b)
            {
                lob.add(a, b);
            }
        }
        lob
    }

    /// *Dependency-ordered-before*.
    fn dependency_ordered(&self, a: usize, b: usize) -> bool {
        let (ea, eb) = (&self.events[a], &self.events[b]);
        let Some(link) = self.dependency(a, ea.op + 1) else { return false };
        let target = eb.op == ea.op + 1;
        match link {
            Link::None | Link::Barrier(..) => false,
            // To the access itself, to later writes, and to reads of what it wrote.
            Link::Address => target || eb.write || self.feeds(ea.op + 1, b),
            Link::Data => (target && eb.write) || self.feeds(ea.op + 1, b),
            Link::Control => eb.write,
            Link::ControlIsb => true,
        }
    }

    /// `b` reads what the write of operation `op` wrote.
    fn feeds(&self, op: usize, b: usize) -> bool {
        let from = |e: &Event| e.write && e.thread == self.events[b].thread && e.op == op;
        (0..b).any(|w| from(&self.events[w]) && self.lrs(w, b))
    }

    /// *Atomic-ordered-before*.
    fn atomic_ordered(&self, a: usize, b: usize) -> bool {
        let acquires = self.events[b].acquire() || self.events[b].rcpc();
        let is_write_of_rmw = self.rmw.iter().any(|&(_, w)| w == a);
        self.rmw.contains(&(a, b)) || (is_write_of_rmw && acquires && self.lrs(a, b))
    }

    /// *Barrier-ordered-before*.
    fn barrier_ordered(&self, a: usize, b: usize) -> bool {
        let (ea, eb) = (&self.events[a], &self.events[b]);
        let barrier = self.links(a, b).any(|link| match link {
            Link::Barrier(Barrier::Full, _) => true,
            Link::Barrier(Barrier::Load, _) => !ea.write,
            Link::Barrier(Barrier::Store, _) => ea.write && eb.write,
            _ => false,
        });
        barrier
            || ea.acquire()
            || ea.rcpc()
            || eb.release()
            || (ea.release() && eb.acquire())
            // The write of a single instruction that acquires and releases is before all that follows.
            || (ea.write && ea.what == What::Swap(true, true))
    }

    /// What x86-TSO keeps of program order: all but a write and a later read, unless something stands between them.
    fn store_order(&self) -> Relation {
        let mut order = Relation::new(self.events.len());
        for (a, b) in self.pairs() {
            let (ea, eb) = (&self.events[a], &self.events[b]);
            let barrier = self.links(a, b).any(|l| matches!(l, Link::Barrier(Barrier::Full, _)));
            let locked = ea.in_rmw() || eb.in_rmw();
            let release = |c: usize| {
                self.events[c].what == What::StoreRelease
                    && (c == a || self.po.has(a, c))
                    && self.po.has(c, b)
            };
            let fenced = barrier || locked || (a..b).any(release) || self.locked_between(a, b);
            if !ea.write || eb.write || fenced {
                order.add(a, b);
            }
        }
        order
    }

    fn locked_between(&self, a: usize, b: usize) -> bool {
        self.rmw.iter().any(|&(r, w)| self.po.has(a, r) && self.po.has(w, b))
    }
}

/// One choice of what reads read from and of the order of writes.
struct Execution<'a> {
    program: &'a Program<'a>,
    /// For each event that reads, the write that it reads from.
    from: Vec<usize>,
    /// Coherence order.
    co: Relation,
}

impl Execution<'_> {
    fn external(&self, a: usize, b: usize) -> bool {
        let events = &self.program.events;
        events[a].thread.is_none() || events[a].thread != events[b].thread
    }

    /// Reads-from, from-reads and coherence; `all` of them or those between threads.
    fn communication(&self, all: bool) -> Relation {
        let events = &self.program.events;
        let mut r = Relation::new(events.len());
        let mut add = |a, b| {
            if all || self.external(a, b) {
                r.add(a, b);
            }
        };
        for (a, event) in events.iter().enumerate() {
            let co_after = |w: usize| (0..events.len()).filter(move |&b| self.co.has(w, b));
            if event.write {
                co_after(a).for_each(|b| add(a, b));
            } else {
                add(self.from[a], a);
                co_after(self.from[a]).for_each(|b| add(a, b));
            }
        }
        r
    }

    fn is_allowed(&self, model: Model) -> bool {
        let p = self.program;
        let local = p.po_loc.clone().or(&self.communication(true));
        let all = model == Model::Sequential;
        // TSO's coherence and from-reads are global within a thread as well; reads-from is not.
        local.is_acyclic() && self.is_atomic() && p.local.clone().or(&self.communication(all)).is_acyclic()
    }

    /// No other thread's write comes between a read-modify-write's read and its write.
    fn is_atomic(&self) -> bool {
        let n = self.program.events.len();
        self.program.rmw.iter().all(|&(r, w)| {
            !(0..n)
                .any(|o| o != w && self.co.has(self.from[r], o) && self.co.has(o, w) && self.external(o, w))
        })
    }

    fn outcome(&self) -> u32 {
        let p = self.program;
        let mut outcome = 0;
        let mut count = vec![0; p.test.threads.len()];
        for (n, event) in p.events.iter().enumerate() {
            let Some(t) = event.thread.filter(|_| !event.write) else { continue };
            outcome |= u32::from(p.events[self.from[n]].value) << (p.test.reads_shift(t) + 2 * count[t]);
            count[t] += 1;
        }
        for (n, event) in p.events.iter().enumerate() {
            if event.write
                && self.co.0[n] == 0
                && let Some(shift) = p.test.final_shift(event.location)
            {
                outcome |= u32::from(event.value) << shift;
            }
        }
        outcome
    }
}

/// All orders of `items`.
fn orders(items: &[usize]) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (n, &first) in items.iter().enumerate() {
        let rest: Vec<usize> = items.iter().enumerate().filter(|&(m, _)| m != n).map(|(_, &i)| i).collect();
        for mut order in orders(&rest) {
            order.insert(0, first);
            all.push(order);
        }
    }
    all
}

/// All combinations of one of each.
fn combinations<T: Clone>(choices: &[Vec<T>]) -> Vec<Vec<T>> {
    choices.iter().fold(vec![Vec::new()], |all, list| {
        all.iter()
            .flat_map(|start| list.iter().map(|c| [start.as_slice(), std::slice::from_ref(c)].concat()))
            .collect()
    })
}

/// The outcomes that `model` allows.
pub fn allowed(test: &Test, model: Model) -> BTreeSet<u32> {
    let program = Program::new(test, model);
    let events = &program.events;
    let writes = |l: usize| (0..events.len()).filter(move |&n| events[n].write && events[n].location == l);
    let coherence: Vec<Vec<Vec<usize>>> = (0..test.locations())
        .map(|l| orders(&writes(l).filter(|&n| events[n].thread.is_some()).collect::<Vec<_>>()))
        .collect();
    let sources: Vec<Vec<usize>> = events
        .iter()
        .map(|e| if e.write { vec![usize::MAX] } else { writes(e.location).collect() })
        .collect();
    let mut outcomes = BTreeSet::new();
    for order in combinations(&coherence) {
        let mut co = Relation::new(events.len());
        for (location, order) in order.iter().enumerate() {
            let line: Vec<usize> = std::iter::once(location).chain(order.iter().copied()).collect();
            for (n, &a) in line.iter().enumerate() {
                line[n + 1..].iter().for_each(|&b| co.add(a, b));
            }
        }
        for from in combinations(&sources) {
            let execution = Execution { program: &program, from, co: co.clone() };
            let outcome = execution.outcome();
            if !outcomes.contains(&outcome) && execution.is_allowed(model) {
                outcomes.insert(outcome);
            }
        }
    }
    outcomes
}
