//! The report as tracks for Perfetto: the examples of each group, with a track for each process, a slice for
//! each hold, an arrow from the opener by the fork to the holder, and an instant for the failure.
//!
//! The times are those of the wall clock, in nanoseconds since 1970, so that recordings of several machines
//! have one time axis.

mod proto;
mod rows;

use std::io::{self, Write};

use jiff::Timestamp;
use prost::Message as _;

use self::proto::{
    ChildTracksOrdering, DebugAnnotation, EventType, Trace, TracePacket, TrackDescriptor,
    TrackEvent,
};
use super::{
    compare::{self, Row},
    group::Example,
    model::Document,
    words,
};
use crate::{
    event::Incident,
    text::{escape, name},
    timeline::{
        lanes::{Bar, Doing, Event, Lane, Mark, extent, lanes},
        zoom::Span,
    },
};

/// All packets are of one sequence.
const SEQUENCE: u32 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`: nothing refers to packets before this one.
const BEGINS: u32 = 1;
/// The category of all events.
const CATEGORY: &str = "etxtbsy";
/// The columns of a track's name.
const NAME: usize = 200;

/// Writes the trace.
pub(super) fn write(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let mut tracks = Tracks { out, uuid: 0, flow: 0, is_first: true };
    for row in compare::rows(document) {
        tracks.group(document, &row)?;
    }
    Ok(())
}

/// What is written, and the ids that were given.
struct Tracks<'a> {
    out: &'a mut dyn Write,
    uuid: u64,
    flow: u64,
    is_first: bool,
}

/// An event that waits to be written in the order of time.
struct Timed {
    /// Nanoseconds from the failure.
    at: i64,
    event: TrackEvent,
}

/// One end, or the middle, of an arrow.
struct Flow {
    id: u64,
    touches: Touched,
}

/// What an arrow touches, on the track of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touched {
    /// An event at that time: it opened the file, or forked a holder.
    Mark(u32, Event, i64),
    /// The moment at which a forked holder begins to run.
    Start(u32, i64),
    /// A hold.
    Hold(u32, Bar),
}

impl Tracks<'_> {
    fn packet(&mut self, packet: TracePacket) -> io::Result<()> {
        let first = std::mem::take(&mut self.is_first);
        let packet = TracePacket {
            trusted_packet_sequence_id: Some(SEQUENCE),
            sequence_flags: first.then_some(BEGINS),
            ..packet
        };
        self.out.write_all(&Trace { packet: vec![packet] }.encode_to_vec())
    }

    /// Describes a new track; returns its id.
    fn track(&mut self, name: &str, parent: Option<u64>, rank: usize) -> io::Result<u64> {
        self.uuid += 1;
        let descriptor = TrackDescriptor {
            uuid: Some(self.uuid),
            name: Some(escape::short(name, NAME)),
            parent_uuid: parent,
            child_ordering: Some(ChildTracksOrdering::Explicit.into()),
            sibling_order_rank: i32::try_from(rank).ok(),
        };
        self.packet(TracePacket { track_descriptor: Some(descriptor), ..TracePacket::default() })?;
        Ok(self.uuid)
    }

    fn group(&mut self, document: &Document, row: &Row<'_>) -> io::Result<()> {
        let Some(group) = row.group() else { return Ok(()) };
        let of = if row.now.is_none() { " (only in the baseline)" } else { "" };
        let title =
            format!("{}. {}{of}: {}", row.number, words::verdict(row), words::plain_sentence(row));
        let parent = self.track(&title, None, row.number)?;
        for (rank, example) in group.kept().enumerate() {
            let origin = words::origin(words::source(document, row), example);
            self.example(example, &origin, parent, rank)?;
        }
        Ok(())
    }

    /// The tracks of an incident.
    fn example(
        &mut self,
        example: &Example,
        origin: &str,
        parent: u64,
        rank: usize,
    ) -> io::Result<()> {
        let incident = &example.incident;
        let parent = self.track(origin, Some(parent), rank)?;
        let lanes = lanes(incident, None);
        let all = extent(&lanes).0.all;
        let flows = self.flows(incident, &lanes);
        let (mut events, mut tracks) = (Vec::new(), Vec::new());
        for (rank, lane) in lanes.iter().enumerate() {
            let title = match &lane.comm {
                Some(comm) => format!("{comm}[{}]", lane.pid),
                None => format!("pid {}", lane.pid),
            };
            let first = self.track(&title, Some(parent), 2 * rank)?;
            tracks.push((lane.pid, first));
            for (at, bars) in rows::rows(&lane.bars).iter().enumerate() {
                let track = if at == 0 {
                    first
                } else {
                    self.track(&format!("{title} ({})", at + 1), Some(parent), 2 * rank + 1)?
                };
                for bar in bars {
                    slice(
                        *bar,
                        all,
                        track,
                        &ids(&flows, Touched::Hold(lane.pid, *bar)),
                        &mut events,
                    );
                }
            }
            for mark in &lane.marks {
                let at = clamped(mark.at, all);
                let flows = ids(&flows, Touched::Mark(lane.pid, mark.event, mark.at));
                let mut event = event(EventType::Instant, first, Some(&mark.text), flows);
                if mark.event == Event::Failed {
                    event.debug_annotations = about(incident, origin);
                }
                events.push(Timed { at, event });
            }
        }
        for Flow { id, touches } in &flows {
            if let Touched::Start(pid, at) = touches
                && let Some((_, track)) = tracks.iter().find(|(lane, _)| lane == pid)
            {
                let event = event(EventType::Instant, *track, Some("starts"), vec![*id]);
                events.push(Timed { at: clamped(*at, all), event });
            }
        }
        // An end comes before what begins at its time. A stable sort keeps an outer slice before an inner.
        let is_no_end = |event: &TrackEvent| event.r#type != Some(EventType::SliceEnd.into());
        events.sort_by_key(|timed| (timed.at, is_no_end(&timed.event)));
        for Timed { at, event } in events {
            let timestamp = Some(moment(incident, at));
            self.packet(TracePacket {
                timestamp,
                track_event: Some(event),
                ..TracePacket::default()
            })?;
        }
        Ok(())
    }

    /// The arrows of an incident: one for each holder, from the opener by the fork to the hold.
    fn flows(&mut self, incident: &Incident, lanes: &[Lane]) -> Vec<Flow> {
        let mut flows = Vec::new();
        let lane = |pid: u32| lanes.iter().find(|lane| lane.pid == pid);
        let marked = |pid: u32, event: Event, time_ns: u64| {
            let at = i128::from(time_ns) - i128::from(incident.time_ns);
            let is_it = |mark: &&Mark| mark.event == event && i128::from(mark.at) == at;
            Some(lane(pid)?.marks.iter().find(is_it)?.at)
        };
        for holder in &incident.holders {
            self.flow += 1;
            let id = self.flow;
            if let Some(opened) = &holder.opened
                && let Some(at) = marked(opened.pid, Event::Opened, opened.time_ns)
            {
                flows.push(Flow { id, touches: Touched::Mark(opened.pid, Event::Opened, at) });
            }
            if let Some(forked) = &holder.forked
                && let Some(at) = marked(forked.pid, Event::Forked, forked.time_ns)
            {
                flows.push(Flow { id, touches: Touched::Mark(forked.pid, Event::Forked, at) });
                // The child has the file from the beginning of its fork, before this moment: an arrow
                // to the beginning of the hold would point back in time.
                flows.push(Flow { id, touches: Touched::Start(holder.pid, at) });
                continue;
            }
            // The bar of the hold itself is the longest; others show its fork or its exec.
            let bars = lane(holder.pid).map_or(&[][..], |lane| &lane.bars);
            let known = bars.iter().filter(|bar| bar.doing != Doing::Unknown);
            let hold = known.max_by_key(|bar| i128::from(bar.to) - i128::from(bar.from));
            if let Some(bar) = hold {
                flows.push(Flow { id, touches: Touched::Hold(holder.pid, *bar) });
            }
        }
        flows
    }
}

/// The arrows that touch this.
fn ids(flows: &[Flow], touches: Touched) -> Vec<u64> {
    flows.iter().filter(|flow| flow.touches == touches).map(|flow| flow.id).collect()
}

/// The slice of a bar; one that is not over has no end.
fn slice(bar: Bar, all: Span, track: u64, flows: &[u64], events: &mut Vec<Timed>) {
    let name = bar.doing.word();
    let (from, to) = (clamped(bar.from, all), clamped(bar.to, all));
    if from >= to {
        let event = event(EventType::Instant, track, Some(name), flows.to_vec());
        events.push(Timed { at: from, event });
        return;
    }
    let begin = event(EventType::SliceBegin, track, Some(name), flows.to_vec());
    events.push(Timed { at: from, event: begin });
    if bar.to != i64::MAX {
        events.push(Timed { at: to, event: event(EventType::SliceEnd, track, None, Vec::new()) });
    }
}

/// A time within what is known: an unknown beginning is there where the first event is.
fn clamped(at: i64, all: Span) -> i64 {
    at.clamp(all.from, all.to)
}

fn event(kind: EventType, track: u64, name: Option<&str>, flow_ids: Vec<u64>) -> TrackEvent {
    let categories = if name.is_some() { vec![CATEGORY.to_owned()] } else { Vec::new() };
    TrackEvent {
        debug_annotations: Vec::new(),
        r#type: Some(kind.into()),
        track_uuid: Some(track),
        categories,
        name: name.map(|name| escape::short(name, NAME)),
        flow_ids,
    }
}

/// What the instant of the failure says.
fn about(incident: &Incident, origin: &str) -> Vec<DebugAnnotation> {
    let path = incident.file.path.as_ref().or(incident.path.as_ref());
    let facts = [
        ("incident", Some(origin.to_owned())),
        ("file", path.map(|path| escape::short(path, NAME))),
        ("verdict", Some(name(incident.verdict.kind))),
        ("summary", Some(escape::prose(&incident.verdict.summary))),
        ("writers", incident.file.writers.map(|writers| writers.to_string())),
        ("explained", Some(incident.explained.to_string())),
    ];
    let facts = facts.into_iter().filter_map(|(name, value)| {
        Some(DebugAnnotation { name: Some(name.to_owned()), string_value: Some(value?) })
    });
    facts.collect()
}

/// A moment so many nanoseconds from the failure. Where the wall clock's time cannot be read, it is that of
/// the machine.
fn moment(incident: &Incident, offset: i64) -> u64 {
    let failed = incident.time.parse::<Timestamp>().map(Timestamp::as_nanosecond);
    let failed = failed.unwrap_or_else(|_| incident.time_ns.into());
    let moment = failed + i128::from(offset);
    u64::try_from(moment.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        io::Read as _,
    };

    use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, Value};
    use ruzstd::decoding::StreamingDecoder;

    use super::*;
    use crate::report::samples::{self, bytes, shows};

    fn decoded(document: &Document) -> Vec<TracePacket> {
        Trace::decode(&bytes(write, document)[..]).unwrap().packet
    }

    /// A line for each packet.
    fn listed(packets: &[TracePacket]) -> String {
        let mut names = HashMap::new();
        let mut lines = String::new();
        let mut first = None;
        for packet in packets {
            if let Some(track) = &packet.track_descriptor {
                let name = track.name.clone().unwrap_or_default();
                let parent =
                    track.parent_uuid.map(|uuid| names.get(&uuid).cloned().unwrap_or_default());
                lines += &format!("track {name:?} in {parent:?}\n");
                names.insert(track.uuid(), name);
            }
            if let Some(event) = &packet.track_event {
                let at = i128::from(packet.timestamp());
                let at = at - *first.get_or_insert(at);
                let track = &names[&event.track_uuid()];
                let kind = format!("{:?}", event.r#type());
                let flows = &event.flow_ids;
                lines += &format!("{at:>12} {kind:10} {track:?} {:?} {flows:?}\n", event.name());
            }
        }
        lines
    }

    #[test]
    fn recordings() {
        shows("perfetto", &listed(&decoded(&samples::recorded())));
    }

    /// Perfetto's own descriptors, those of its Python package 0.59.1 (Apache-2.0): the `FileDescriptorProto` of
    /// protos/perfetto/trace/perfetto_trace.proto in a `FileDescriptorSet`, compressed by zstd.
    const DESCRIPTORS: &[u8] = include_bytes!("perfetto_trace.desc.zst");

    /// The trace as the official descriptors have it. A field that they do not have, or of another type, is unknown.
    fn officially(document: &Document) -> DynamicMessage {
        let mut descriptors = Vec::new();
        StreamingDecoder::new(DESCRIPTORS).unwrap().read_to_end(&mut descriptors).unwrap();
        let pool = DescriptorPool::decode(&descriptors[..]).unwrap();
        let trace = pool.get_message_by_name("perfetto.protos.Trace").unwrap();
        DynamicMessage::decode(trace, &bytes(write, document)[..]).unwrap()
    }

    fn assert_known(message: &DynamicMessage) {
        assert_eq!(message.unknown_fields().count(), 0, "{message}");
        for (_, value) in message.fields() {
            let one = value.as_message().into_iter();
            let list = value.as_list().unwrap_or_default().iter().filter_map(Value::as_message);
            one.chain(list).for_each(assert_known);
        }
    }

    #[test]
    fn the_official_descriptors_know_every_field() {
        for document in [samples::recorded(), samples::compared(), samples::hostile()] {
            assert_known(&officially(&document));
        }
        let trace = officially(&samples::recorded());
        let packets = trace.get_field_by_name("packet").unwrap();
        let events = packets.as_list().unwrap().iter().filter_map(|packet| {
            let event = packet.as_message()?.get_field_by_name("track_event")?;
            Some(event.as_message()?.clone())
        });
        let text = |event: &DynamicMessage, field: &str| {
            event.get_field_by_name(field).unwrap().as_str().unwrap().to_owned()
        };
        let failed: Vec<DynamicMessage> =
            events.filter(|event| text(event, "name") == "execve: Text file busy").collect();
        let kind = failed[0].get_field_by_name("type").unwrap().as_enum_number().unwrap();
        let event = failed[0].descriptor();
        let kinds = event.get_field_by_name("type").unwrap().kind();
        let kind = kinds.as_enum().unwrap().get_value(kind).unwrap();
        assert_eq!(kind.name(), "TYPE_INSTANT");
        let facts = failed[0].get_field_by_name("debug_annotations").unwrap();
        let facts = facts.as_list().unwrap().iter();
        let names: Vec<String> =
            facts.map(|fact| text(fact.as_message().unwrap(), "name")).collect();
        assert!(names.contains(&"verdict".to_owned()), "{names:?}");
    }

    /// What the viewer needs: known tracks, ends for begins, times in order, arrows of two ends.
    fn check(packets: &[TracePacket]) {
        assert_eq!(packets[0].sequence_flags, Some(BEGINS));
        let mut tracks = HashSet::new();
        let mut open: HashMap<u64, u64> = HashMap::new();
        let mut flows: HashMap<u64, u64> = HashMap::new();
        for packet in packets {
            assert_eq!(packet.trusted_packet_sequence_id, Some(SEQUENCE));
            if let Some(track) = &packet.track_descriptor {
                assert!(tracks.insert(track.uuid()), "{track:?}");
                assert!(track.parent_uuid.is_none_or(|parent| tracks.contains(&parent)));
            }
            let Some(event) = &packet.track_event else { continue };
            assert!(packet.timestamp() > 1_000_000_000 && tracks.contains(&event.track_uuid()));
            let open = open.entry(event.track_uuid()).or_default();
            match event.r#type() {
                EventType::SliceBegin => *open += 1,
                EventType::SliceEnd => *open = open.checked_sub(1).unwrap(),
                EventType::Instant => {}
                EventType::Unspecified => panic!("{event:?}"),
            }
            for flow in &event.flow_ids {
                *flows.entry(*flow).or_default() += 1;
            }
        }
        assert!(!flows.is_empty());
    }

    #[test]
    fn traces_are_consistent() {
        for document in [samples::recorded(), samples::compared(), samples::hostile()] {
            check(&decoded(&document));
        }
    }

    #[test]
    fn an_arrow_goes_from_the_opener_by_the_fork_to_the_holder() {
        let packets = decoded(&samples::recorded());
        let events = packets.iter().filter_map(|packet| packet.track_event.as_ref());
        let touched: Vec<&str> =
            events.filter(|event| event.flow_ids.contains(&1)).map(TrackEvent::name).collect();
        let expected = [
            "opened by thread 14235 fork-exec-16",
            "thread 14222 fork-exec-3 forks 14385",
            "starts",
        ];
        assert_eq!(touched, expected);
        // Nothing was forked for the other: the opener itself held the file.
        let events = packets.iter().filter_map(|packet| packet.track_event.as_ref());
        let touched = events.filter(|event| event.flow_ids.contains(&4)).map(TrackEvent::name);
        assert_eq!(touched.collect::<Vec<_>>(), ["open", "opened by thread 15100 etxtbsy-trace"]);
    }

    #[test]
    fn the_failure_is_an_instant_that_says_what_failed() {
        let packets = decoded(&samples::recorded());
        let events = packets.iter().filter_map(|packet| packet.track_event.as_ref());
        let failed: Vec<&TrackEvent> =
            events.filter(|event| !event.debug_annotations.is_empty()).collect();
        assert_eq!(failed.len(), 4);
        assert_eq!(failed[0].name(), "execve: Text file busy");
        let names: Vec<&str> =
            failed[0].debug_annotations.iter().map(DebugAnnotation::name).collect();
        assert_eq!(names, ["incident", "file", "verdict", "summary", "writers", "explained"]);
    }

    #[test]
    fn a_hold_that_is_not_over_has_no_end() {
        let mut incident = crate::output::samples::race();
        incident.holders[0].released = None;
        let mut now = crate::report::model::Report::default();
        now.file("x");
        now.add(&incident.into());
        let packets = decoded(&Document { now, before: None });
        let count = |kind: EventType| {
            let events = packets.iter().filter_map(|packet| packet.track_event.as_ref());
            events.filter(|event| event.r#type() == kind).count()
        };
        assert_eq!(count(EventType::SliceBegin), count(EventType::SliceEnd) + 2);
    }
}
