//! The `webhook-delivery` header of an answer: what a receiver asks its sender to do.
//!
//! Must not know: which answers it counts for; a format decides that.

/// What a receiver asks for. Words that are not known count as absent: others may be added to the
/// draft that this follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiverControl {
    /// No more tries of the delivery that was answered.
    pub abort_message: bool,
    /// Nothing after it.
    pub disable: bool,
}

impl ReceiverControl {
    /// Reads all headers of that name; each may hold several words, separated by commas.
    pub fn of(headers: &[(String, String)]) -> ReceiverControl {
        let mut control = ReceiverControl::default();
        let values =
            headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("webhook-delivery"));
        for word in values.flat_map(|(_, value)| value.split(',')).map(str::trim) {
            control.abort_message |= word.eq_ignore_ascii_case("abort-message");
            control.disable |= word.eq_ignore_ascii_case("disable");
        }
        control
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[(&str, &str)]) -> (bool, bool) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers: Vec<_> = values.iter().map(owned).collect();
        let control = ReceiverControl::of(&headers);
        (control.abort_message, control.disable)
    }

    #[test]
    fn words_are_found_however_they_are_written() {
        assert_eq!(asked(&[("webhook-delivery", "abort-message")]), (true, false));
        assert_eq!(asked(&[("Webhook-Delivery", " DISABLE ")]), (false, true));
        assert_eq!(asked(&[("webhook-delivery", "disable,Abort-Message")]), (true, true));
        assert_eq!(asked(&[("webhook-delivery", "slower, disable")]), (false, true));
        let twice = [("webhook-delivery", "disable"), ("WEBHOOK-DELIVERY", "abort-message")];
        assert_eq!(asked(&twice), (true, true));
    }

    #[test]
    fn anything_else_counts_as_absent() {
        for value in ["", ",", "abort", "disabled", "abort message", "no-disable", "disable;q=1"] {
            assert_eq!(asked(&[("webhook-delivery", value)]), (false, false), "{value}");
        }
        assert_eq!(asked(&[("x-webhook-delivery", "disable")]), (false, false));
        assert_eq!(asked(&[]), (false, false));
    }
}
