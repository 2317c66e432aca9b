"""The columns of the peer's NDJSON, as `tidemill-bench generate` writes them."""

NDJSON = {
    "logs": "time:'BIGINT', observed_time:'BIGINT', severity_number:'INTEGER', severity_text:'VARCHAR', body:'VARCHAR', trace_id:'VARCHAR', "
            "span_id:'VARCHAR', service_name:'VARCHAR', attributes:'JSON', resource:'JSON'",
    "metrics": "time:'BIGINT', start_time:'BIGINT', name:'VARCHAR', unit:'VARCHAR', kind:'VARCHAR', value:'DOUBLE', service_name:'VARCHAR', "
               "attributes:'JSON', resource:'JSON'",
    "traces": "time:'BIGINT', end_time:'BIGINT', trace_id:'VARCHAR', span_id:'VARCHAR', parent_span_id:'VARCHAR', name:'VARCHAR', kind:'INTEGER', "
              "status:'INTEGER', service_name:'VARCHAR', attributes:'JSON', resource:'JSON'",
}  # fmt: skip
