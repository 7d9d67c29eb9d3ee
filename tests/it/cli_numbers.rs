//! Options that are numbers: what is none is refused by value, with what is allowed.

use crate::support::process::ringback;

#[test]
fn what_is_no_number_is_told_what_is_allowed() {
    for (arguments, allowed) in [
        (&["serve", "--retry-schedule-seconds", "5,x"][..], "a whole number from 0 to 604800"),
        (&["serve", "--breaker-failures", "x"], "a whole number from 0 to 4294967295"),
        (&["serve", "--job-slots", "0"], "a whole number from 1 to 10000"),
        (&["serve", "--lane-rate-per-second", "fast"], "a number from 0.001 to 1000000"),
        (&["serve", "--max-file-bytes", "1G"], "a whole number from 0 to"),
        (&["listen", "--port", "http"], "a whole number from 0 to 65535"),
        (&["listen", "--status", "99"], "a whole number from 200 to 599"),
        (&["bench", "--jobs", "many"], "a whole number from 1 to 10000000"),
        (&["apps", "create", "a", "--rate-per-second", "0"], "a whole number from 1 to 1000000"),
    ] {
        let refused = ringback(arguments).failure();
        let value = arguments.last().unwrap().rsplit(',').next().unwrap();
        assert!(refused.stderr.contains(&format!("'{value}'")), "{}", refused.stderr);
        assert!(refused.stderr.contains(&format!("allowed: {allowed}")), "{}", refused.stderr);
    }
}
