//! Patterns that name events: one by its name, a family, or all of them. The only rule for them.

use super::event::EventType;

/// Patterns that one list may hold.
pub const MAX_PATTERNS: usize = 32;
const FAMILIES: &[&str] = &["*", "job.*", "group.*", "endpoint.*", "file.*"];

/// Whether a text names events.
pub fn is_pattern(text: &str) -> bool {
    EventType::parse(text).is_some() || FAMILIES.contains(&text)
}

/// All texts that do.
pub fn known_patterns() -> String {
    let known: Vec<_> = EventType::ALL.iter().map(|event| event.as_str()).collect();
    format!("{}, {}", known.join(", "), FAMILIES.join(", "))
}

/// Whether an event pattern (`job.failed`, `job.*`, `*`) names this event.
pub fn pattern_matches(pattern: &str, event: EventType) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => event.as_str().starts_with(prefix),
        None => pattern == event.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_names_an_event_and_every_event_has_a_family() {
        let known = known_patterns();
        for pattern in known.split(", ") {
            let named = EventType::ALL.iter().any(|event| pattern_matches(pattern, *event));
            assert!(is_pattern(pattern) && named, "{pattern}");
        }
        for event in EventType::ALL {
            let families = FAMILIES.iter().filter(|family| pattern_matches(family, event));
            assert_eq!(families.count(), 2, "{event:?}");
        }
        for bad in ["", "job", "job.", "job.f*", "j*", "**", "nothing", "JOB.*"] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }
}
