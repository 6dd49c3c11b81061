//! The location of each event: in memory, with about 40 bytes per event and 200 per stream, so that only data is read
//! from files.
//!
//! Events are numbered from 0 in the order of the log; this number is the event's *ordinal*. Lists contain ordinals,
//! which increase with the positions.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use snaphook_driver::judge::Tail;
use snaphook_driver::time::Millis;
use snaphook_driver::{EventFilter, EventKind, Position, Stream, StreamRef};

/// Where the line of a body is: offset and length.
pub(super) type Span = (u32, u32);

/// Everything that is known about the events without reading them.
#[derive(Default)]
pub(super) struct Index {
    entries: Vec<IndexEntry>,
    /// Sorted by their first ordinals; never empty once the log is open.
    segments: Vec<Segment>,
    models: Vec<Model>,
    names: HashMap<Arc<str>, u32>,
    streams: Vec<StreamPlaces>,
    definitions: Vec<u32>,
    /// Time of the last event.
    pub(super) time: Millis,
}

/// The location of one event.
#[derive(Clone, Copy)]
pub(super) struct IndexEntry {
    pub(super) position: Position,
    /// Offset of its line in its segment.
    offset: u32,
    /// Length of its line without the newline.
    length: u32,
    stream: u32,
    pub(super) kind: EventKind,
}

struct Model {
    name: Arc<str>,
    definition: Option<u32>,
    instances: HashMap<Arc<str>, u32>,
    places: Vec<u32>,
    /// Position of the last event of an instance.
    last_of_instances: Position,
}

struct StreamPlaces {
    model: u32,
    instance: Option<Arc<str>>,
    places: Vec<u32>,
}

/// A file of the log.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Ordinal of its first event.
    first: u32,
    /// Open while this is the last segment; others are opened for reading.
    file: Option<Arc<File>>,
}

impl Segment {
    pub(super) fn file(&self) -> io::Result<Arc<File>> {
        match &self.file {
            Some(file) => Ok(Arc::clone(file)),
            None => File::open(&self.path).map(Arc::new),
        }
    }
}

/// The location of an event's line.
#[derive(Clone, Copy)]
pub(super) struct LineLocation {
    pub(super) segment: usize,
    pub(super) offset: u64,
    pub(super) length: usize,
    pub(super) position: Position,
}

impl Index {
    /// The index of an empty log. No event has an earlier time than the first.
    pub(super) fn new() -> Index {
        Index { time: Millis::MIN, ..Index::default() }
    }

    /// Adds a segment whose first event has, or will have, that ordinal.
    pub(super) fn add_segment(&mut self, first: u32, path: PathBuf, file: Option<Arc<File>>) {
        if let Some(last) = self.segments.last_mut() {
            last.file = None;
        }
        self.segments.push(Segment { path, first, file });
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Adds the next event. Its position is greater than that of the last.
    pub(super) fn push(
        &mut self,
        position: Position,
        kind: EventKind,
        (model, instance): (&str, Option<&str>),
        (offset, length): (u32, u32),
    ) {
        let ordinal = self.count();
        let (model, stream) = self.stream_of(model, instance);
        let model = &mut self.models[model as usize];
        model.places.push(ordinal);
        match instance {
            Some(_) => model.last_of_instances = position,
            None => self.definitions.push(ordinal),
        }
        self.streams[stream as usize].places.push(ordinal);
        self.entries.push(IndexEntry { position, offset, length, stream, kind });
    }

    /// The numbers of a model and of a stream; assigns them if they are new.
    fn stream_of(&mut self, model: &str, instance: Option<&str>) -> (u32, u32) {
        let number = match self.names.get(model) {
            Some(number) => *number,
            None => {
                let (name, number) = (Arc::<str>::from(model), self.models.len() as u32);
                self.names.insert(Arc::clone(&name), number);
                self.models.push(Model {
                    name,
                    definition: None,
                    instances: HashMap::new(),
                    places: Vec::new(),
                    last_of_instances: 0,
                });
                number
            }
        };
        let model = &mut self.models[number as usize];
        let known = match instance {
            Some(instance) => model.instances.get(instance).copied(),
            None => model.definition,
        };
        if let Some(stream) = known {
            return (number, stream);
        }
        let stream = self.streams.len() as u32;
        let instance = instance.map(Arc::<str>::from);
        match &instance {
            Some(instance) => drop(model.instances.insert(Arc::clone(instance), stream)),
            None => model.definition = Some(stream),
        }
        self.streams.push(StreamPlaces { model: number, instance, places: Vec::new() });
        (number, stream)
    }

    /// The number of events, which is the ordinal of the next one.
    pub(super) fn count(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(super) fn head(&self) -> Position {
        self.entries.last().map_or(0, |entry| entry.position)
    }

    pub(super) fn entry(&self, ordinal: u32) -> Option<&IndexEntry> {
        self.entries.get(ordinal as usize)
    }

    /// The ordinal of the first event after a position.
    pub(super) fn ordinal_after(&self, position: Position) -> u32 {
        self.entries.partition_point(|entry| entry.position <= position) as u32
    }

    /// The ordinal of the event at a position.
    pub(super) fn ordinal_at(&self, position: Position) -> Option<u32> {
        let ordinal = self.ordinal_after(position.checked_sub(1)?);
        self.entry(ordinal).filter(|entry| entry.position == position).map(|_| ordinal)
    }

    pub(super) fn place(&self, ordinal: u32) -> Option<LineLocation> {
        let entry = self.entry(ordinal)?;
        let segment = self.segments.partition_point(|segment| segment.first <= ordinal).checked_sub(1)?;
        let (offset, length) = (u64::from(entry.offset), entry.length as usize);
        Some(LineLocation { segment, offset, length, position: entry.position })
    }

    pub(super) fn stream(&self, entry: &IndexEntry) -> Stream {
        let stream = &self.streams[entry.stream as usize];
        Stream {
            model: self.models[stream.model as usize].name.to_string(),
            instance: stream.instance.as_deref().map(str::to_owned),
        }
    }

    /// Ordinals of a stream's events.
    pub(super) fn places(&self, model: &str, instance: Option<&str>) -> &[u32] {
        let find = || {
            let model = self.model(model)?;
            let stream = match instance {
                Some(instance) => model.instances.get(instance).copied(),
                None => model.definition,
            }?;
            Some(self.streams[stream as usize].places.as_slice())
        };
        find().unwrap_or_default()
    }

    pub(super) fn tail(&self, stream: StreamRef<'_>) -> Tail {
        let last = self.places(stream.model, stream.instance).last();
        let entry = last.and_then(|ordinal| self.entry(*ordinal));
        entry.map_or(Tail::NONE, |entry| Tail { position: entry.position, ended: entry.kind.ends_stream() })
    }

    /// Position of the last event of a model's instances; 0 if there is none.
    pub(super) fn last_of_instances(&self, model: &str) -> Position {
        self.model(model).map_or(0, |model| model.last_of_instances)
    }

    /// Events after a position that may match according to the lists, in order.
    pub(super) fn candidates<'a>(
        &'a self,
        filter: &EventFilter,
        after: Position,
    ) -> Box<dyn Iterator<Item = (u32, &'a IndexEntry)> + 'a> {
        let places = match (&filter.model, &filter.instance) {
            (Some(model), Some(instance)) => self.places(model, Some(instance)),
            (Some(model), None) if filter.definitions_only => self.places(model, None),
            (Some(model), None) => self.model(model).map_or(&[][..], |model| &model.places),
            (None, _) if filter.definitions_only => &self.definitions,
            (None, _) => {
                let first = self.ordinal_after(after);
                return Box::new((first..).zip(&self.entries[first as usize..]));
            }
        };
        let first = self.ordinal_after(after);
        let start = places.partition_point(|ordinal| *ordinal < first);
        Box::new(places[start..].iter().map(|ordinal| (*ordinal, &self.entries[*ordinal as usize])))
    }

    /// Whether an event passes a filter; see [`EventFilter::matches`].
    pub(super) fn matches(&self, filter: &EventFilter, entry: &IndexEntry) -> bool {
        let stream = &self.streams[entry.stream as usize];
        filter.model.as_ref().is_none_or(|model| **model == *self.models[stream.model as usize].name)
            && filter.instance.as_ref().is_none_or(|instance| stream.instance.as_deref() == Some(instance))
            && (!filter.definitions_only || stream.instance.is_none())
            && (filter.kinds.is_empty() || filter.kinds.contains(&entry.kind))
    }

    fn model(&self, name: &str) -> Option<&Model> {
        self.names.get(name).map(|number| &self.models[*number as usize])
    }
}
