//! The memory budget of requests: bodies, trees, pages and responses, by their real size.
//!
//! Code that is about to use memory takes a [`Lease`] first; dropping it returns the bytes. Nothing waits here: a lease
//! that does not fit is rejected, with a [`Shortage`] that says whether it can ever fit. A [`Share`] limits the memory
//! of all requests of one connection, and the last eighth of the budget is reserved for small leases, so that small
//! requests are served even if large ones are not.

pub mod allocator;

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::format_size;

/// A lease of at most this size may use the whole budget.
pub const SMALL_BYTES: usize = 32 << 10;

/// The part reserved for small leases, and the maximum part of a connection with more than one lease, as fractions of
/// the budget.
const RESERVE_PART: usize = 8;
const SHARE_PART: usize = 4;

/// Memory of a value in a tree: its slot in a list that grows by doubling, and its digits.
const VALUE_BYTES: usize = 160;
/// Additional memory of a list: capacity for four values.
const LIST_BYTES: usize = 288;
/// Additional memory of an object: capacity for four members, and the hash table.
const OBJECT_BYTES: usize = 448;
/// Additional memory of a named value.
const NAME_BYTES: usize = 80;
/// Up to this size a rough estimate, which also counts commas in strings, is good enough.
const ROUGH_BYTES: usize = 1 << 20;

/// A larger lease counts as large work: the allocator is notified when it ends.
const LARGE_BYTES: usize = 4 << 20;

/// The budget of one server.
pub struct MemoryBudget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// It would not fit even if nothing else was in use.
    Never { wanted: usize, most: usize, limit: usize },
    /// The connection uses too much.
    Share { held: usize, most: usize },
    /// All requests together use too much.
    Now { used: usize, limit: usize },
}

/// The part of the budget for one connection, or for the engine's own work.
pub struct Share {
    budget: Arc<MemoryBudget>,
    /// Only counted if the share is limited.
    used: AtomicUsize,
    is_bounded: bool,
}

/// Reserved bytes, returned when dropped. `S` is a reference to the share.
pub struct Lease<S: Borrow<Share>> {
    share: S,
    bytes: AtomicUsize,
}

impl MemoryBudget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(MemoryBudget { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) })
    }

    /// A smaller limit does not affect existing leases.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Bytes currently in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// For one connection.
    pub fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), used: AtomicUsize::new(0), is_bounded: true }
    }

    /// For work that does not belong to a single connection.
    pub fn whole(self: &Arc<Self>) -> Share {
        Share { is_bounded: false, ..self.share() }
    }
}

impl Share {
    /// A lease of nothing yet.
    pub fn lease(&self) -> Lease<&Share> {
        Lease::of(self)
    }

    /// `total`: the size of the lease including `bytes`.
    fn take(&self, bytes: usize, total: usize) -> Result<(), Shortage> {
        let limit = self.budget.limit();
        let most = limit - limit / RESERVE_PART;
        if total > most {
            return Err(Shortage::Never { wanted: total, most, limit });
        }
        // Relaxed, here and below: each counter is read independently.
        if self.is_bounded {
            let held = self.used.fetch_add(bytes, Ordering::Relaxed);
            let (with_it, most) = (held + bytes, limit / SHARE_PART);
            // A single lease may be larger.
            if with_it > most && with_it > total {
                self.used.fetch_sub(bytes, Ordering::Relaxed);
                return Err(Shortage::Share { held, most });
            }
        }
        let used = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        let reserve = if total > SMALL_BYTES { limit / RESERVE_PART } else { 0 };
        if used + bytes > limit - reserve {
            self.give_back(bytes);
            return Err(Shortage::Now { used, limit });
        }
        Ok(())
    }

    fn take_anyway(&self, bytes: usize) {
        if self.is_bounded {
            self.used.fetch_add(bytes, Ordering::Relaxed);
        }
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        if self.is_bounded {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl<S: Borrow<Share>> Lease<S> {
    /// A lease of nothing yet.
    pub fn of(share: S) -> Self {
        Lease { share, bytes: AtomicUsize::new(0) }
    }

    /// The reference to the share.
    pub fn share(&self) -> &S {
        &self.share
    }

    fn budget(&self) -> &Share {
        self.share.borrow()
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Grows by `more` bytes, or stays unchanged on an error.
    pub fn grow(&self, more: usize) -> Result<(), Shortage> {
        if more == 0 {
            return Ok(());
        }
        let total = self.bytes.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        self.budget().take(more, total).inspect_err(|_| {
            self.bytes.fetch_sub(more, Ordering::Relaxed);
        })
    }

    /// Resizes to exactly this many bytes, or stays unchanged on an error.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Shortage> {
        let held = *self.bytes.get_mut();
        if bytes > held {
            return self.grow(bytes - held);
        }
        self.budget().give_back(held - bytes);
        *self.bytes.get_mut() = bytes;
        Ok(())
    }

    /// The same for memory that is already in use and cannot be rejected.
    pub fn resize_anyway(&mut self, bytes: usize) {
        let held = *self.bytes.get_mut();
        if bytes > held {
            self.budget().take_anyway(bytes - held);
            *self.bytes.get_mut() = bytes;
        } else if bytes < held {
            self.budget().give_back(held - bytes);
            *self.bytes.get_mut() = bytes;
        }
    }
}

impl<S: Borrow<Share>> Drop for Lease<S> {
    fn drop(&mut self) {
        let held = *self.bytes.get_mut();
        if held > 0 {
            self.budget().give_back(held);
        }
        if held > LARGE_BYTES {
            allocator::large_work_done();
        }
    }
}

impl Shortage {
    /// Whether waiting can help.
    pub const fn can_fit(&self) -> bool {
        !matches!(self, Shortage::Never { .. })
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Shortage::Never { wanted, most, limit } => write!(
                f,
                "the request takes {} of memory, more than the {} that one may have; send or request less, or raise \
                 `server.limits.memory`, which is {}",
                mib(wanted),
                mib(most),
                format_size(limit)
            ),
            Shortage::Share { held, most } => write!(
                f,
                "the requests of this connection use {} of memory and may use {} together; read their responses \
                 first, or use fewer requests at once",
                mib(held),
                mib(most)
            ),
            Shortage::Now { used, limit } => write!(
                f,
                "requests use {} of memory, `server.limits.memory` is {}; try again in a second",
                mib(used),
                format_size(limit)
            ),
        }
    }
}

fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Approximate maximum memory of the tree of this JSON. Any number for invalid JSON.
pub fn tree_bytes(json: &[u8]) -> usize {
    // Each value except the first follows a comma or an opening bracket. Counting in chunks of up to 255 bytes allows
    // the compiler to vectorize it.
    let mut rough = Values { all: 1, ..Values::default() };
    for chunk in json.chunks(usize::from(u8::MAX)) {
        let (mut all, mut lists, mut objects, mut named) = (0_u8, 0_u8, 0_u8, 0_u8);
        for byte in chunk {
            all += u8::from(matches!(byte, b',' | b'[' | b'{'));
            lists += u8::from(*byte == b'[');
            objects += u8::from(*byte == b'{');
            named += u8::from(*byte == b':');
        }
        rough.all += usize::from(all);
        rough.lists += usize::from(lists);
        rough.objects += usize::from(objects);
        rough.named += usize::from(named);
    }
    match json.len() + rough.tree_bytes() {
        few if few <= ROUGH_BYTES => few,
        _ => json.len() + values(json).tree_bytes(),
    }
}

/// Numbers of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    pub all: usize,
    /// The number of lists, of objects, and of named values.
    pub lists: usize,
    pub objects: usize,
    pub named: usize,
}

impl Values {
    const fn tree_bytes(self) -> usize {
        self.all * VALUE_BYTES + self.lists * LIST_BYTES + self.objects * OBJECT_BYTES + self.named * NAME_BYTES
    }
}

/// Counts the values of a JSON text; slightly too many if lists or objects are empty.
pub fn values(json: &[u8]) -> Values {
    let mut values = Values { all: 1, ..Values::default() };
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(byte) = json.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
            }
            b',' => values.all += 1,
            b'[' => {
                values.all += 1;
                values.lists += 1;
            }
            b'{' => {
                values.all += 1;
                values.objects += 1;
            }
            b':' => values.named += 1,
            _ => {}
        }
        at += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    #[test]
    fn leases_are_given_back() {
        let budget = MemoryBudget::new(LIMIT);
        let share = Arc::new(budget.share());
        let mut lease = Lease::of(Arc::clone(&share));
        lease.grow(1_000).unwrap();
        lease.grow(500).unwrap();
        assert_eq!((lease.bytes(), budget.used()), (1_500, 1_500));
        lease.resize(200).unwrap();
        assert_eq!(budget.used(), 200);
        let kept = budget.whole();
        let other = kept.lease();
        other.grow(50_000).unwrap();
        assert_eq!(budget.used(), 50_200);
        lease.resize_anyway(10 * LIMIT);
        assert_eq!(budget.used(), 10 * LIMIT + 50_000);
        drop((lease, other));
        assert_eq!((budget.used(), share.used.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn one_connection_has_its_part_and_small_leases_have_the_rest() {
        let budget = MemoryBudget::new(LIMIT);
        let shares: Vec<Share> = (0..4).map(|_| budget.share()).collect();
        let (quarter, most) = (LIMIT / SHARE_PART, LIMIT - LIMIT / RESERVE_PART);
        assert_eq!(shares[0].lease().grow(most + 1), Err(Shortage::Never { wanted: most + 1, most, limit: LIMIT }));
        // A single lease may be larger than the share, but then no second one is allowed.
        let alone = shares[0].lease();
        alone.grow(quarter).unwrap();
        alone.grow(most - quarter).unwrap();
        assert_eq!(shares[0].lease().grow(1), Err(Shortage::Share { held: most, most: quarter }));
        drop(alone);
        let held: Vec<_> = shares[..3].iter().map(Share::lease).collect();
        for lease in &held {
            lease.grow(quarter).unwrap();
        }
        assert_eq!(shares[0].lease().grow(1), Err(Shortage::Share { held: quarter, most: quarter }));
        // The last eighth is reserved for small leases.
        let large = shares[3].lease();
        assert!(matches!(large.grow(quarter), Err(Shortage::Now { .. })));
        large.grow(LIMIT / RESERVE_PART).unwrap();
        assert_eq!(large.bytes(), LIMIT / RESERVE_PART);
        assert!(matches!(large.grow(1), Err(Shortage::Now { .. })));
        large.grow(0).unwrap();
        let small: Vec<_> = (0..LIMIT / RESERVE_PART / SMALL_BYTES).map(|_| shares[3].lease()).collect();
        for lease in &small {
            lease.grow(SMALL_BYTES).unwrap();
        }
        assert_eq!(budget.used(), LIMIT);
        assert!(matches!(budget.whole().lease().grow(1), Err(Shortage::Now { .. })));
        drop(held);
        budget.whole().lease().grow(LIMIT / 2).unwrap();
    }

    #[test]
    fn threads_agree_in_the_end() {
        let budget = MemoryBudget::new(LIMIT);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let share = budget.share();
                    for round in 0..20_000 {
                        let lease = share.lease();
                        let _ = lease.grow(round % 300_000);
                        let _ = lease.grow(7);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn values_are_counted_outside_of_strings() {
        let counted = |json: &[u8]| {
            let Values { all, lists, objects, named } = values(json);
            (all, lists, objects, named)
        };
        assert_eq!(counted(br#"{"a":[1,2,{"b":",,[{:"}],"c\"":"\\"}"#), (7, 1, 2, 3));
        assert_eq!(counted(b"5"), (1, 0, 0, 0));
        assert_eq!(counted(br#""abc\"#), (1, 0, 0, 0));
    }

    /// The allocations of serde_json's tree, in the allocator's size classes. Lists grow by doubling.
    fn measured(value: &serde_json::Value) -> usize {
        use serde_json::Value;
        let piece = |bytes: usize| if bytes == 0 { 0 } else { bytes.next_multiple_of(16) };
        match value {
            Value::Object(map) if map.is_empty() => 0,
            Value::Object(map) => {
                let room = map.len().next_power_of_two().max(4);
                // Hash, name and value; the table of places.
                let entries = room * (8 + size_of::<String>() + size_of::<Value>()) + 2 * room * 9 + 16;
                entries + map.iter().map(|(name, value)| piece(name.len()) + measured(value)).sum::<usize>()
            }
            Value::Array(items) => items.capacity() * size_of::<Value>() + items.iter().map(measured).sum::<usize>(),
            Value::Number(number) => piece(number.to_string().len().max(8)),
            Value::String(text) => piece(text.len()),
            _ => 0,
        }
    }

    #[test]
    fn an_estimate_is_not_below_the_tree() {
        let zeros = format!("[{}0]", "0,".repeat(300_000));
        let objects = format!("[{}{{}}]", r#"{"a":{}},"#.repeat(50_000));
        let names: Vec<String> = (0..20_000).map(|number| format!(r#""{number}":{number}"#)).collect();
        let text = format!(r#"{{"text":"{}"}}"#, ",[{".repeat(500_000));
        let records = format!("[{}0]", r#"{"a":0,"b":"c"},"#.repeat(60_000));
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        for json in [zeros, objects, format!("{{{}}}", names.join(",")), text, records, deep] {
            let tree = snaphook_driver::json::parse(&json).unwrap();
            let (estimate, real) = (tree_bytes(json.as_bytes()), size_of::<serde_json::Value>() + measured(&tree));
            assert!(estimate >= real, "{estimate} of {real}: {:.20}", json);
        }
        assert!(tree_bytes(format!(r#""{}""#, ",".repeat(2 << 20)).as_bytes()) < 3 << 20, "a text is no tree");
    }
}
