//! Short texts about an incident, which the panes show and the search finds.

use super::near::Near;
use crate::{
    analysis::wait::Wait,
    event::{How, Incident, Released},
    text::{name, time},
};

/// `#12`, or `near miss`, which has no number.
#[must_use]
pub fn title(incident: &Incident, near: Option<Near>) -> String {
    match near {
        Some(_) => "near miss".to_owned(),
        None => format!("#{}", incident.id),
    }
}

/// When the file was released.
#[must_use]
pub fn wait(incident: &Incident) -> String {
    match Wait::of(incident) {
        Wait::Over(0) => "released while the call was failing".to_owned(),
        Wait::Over(ns) => format!("released after {}", time::span(ns)),
        Wait::Endless => "still held".to_owned(),
        Wait::Unknown if !incident.unheld.is_empty() => "held by no process".to_owned(),
        Wait::Unknown => "holder not found".to_owned(),
    }
}

/// By how much an exec missed failing.
#[must_use]
pub fn missed(Near { margin_ns, count }: Near) -> String {
    let like_it = if count > 1 { format!(" ({count} like it)") } else { String::new() };
    let margin = match margin_ns {
        0 => "released during the exec".to_owned(),
        ns => format!("released {} before the exec", time::span(ns)),
    };
    margin + &like_it
}

/// How and when a holder released the file.
#[must_use]
pub fn release(released: &Released) -> String {
    let how = match released.how {
        How::Exit => "exited".to_owned(),
        How::Unknown => "was already released".to_owned(),
        how => name(how),
    };
    match u64::try_from(released.after_ns) {
        Ok(after @ 1..) => format!("+{} {how}", time::span(after)),
        _ => format!("{how} during the call"),
    }
}

/// A time, counted from the failure.
#[must_use]
pub fn offset(incident: &Incident, time_ns: u64) -> String {
    let sign = if time_ns < incident.time_ns { '-' } else { '+' };
    format!("{sign}{}", time::span(time_ns.abs_diff(incident.time_ns)))
}
