"""Makes outrigger.json, the Grafana dashboard: `UPDATE_CHARTS=1 make test-helm` writes it, with the copy in the chart.

Here stands what is shown; how it looks is the same for all panels and said once. The rows are the tiers of the alerts. Change this file, not the JSON. No panel
asks for what only a setting brings (`metrics.aliases`).
"""

import json

# The sidecars that are chosen above the dashboard, and what they tell of the chosen topics and groups. A label that Prometheus does not add here is empty, and
# "All" takes it too.
SIDECARS = 'namespace=~"$namespace", job=~"$job", instance=~"$instance"'
READ = f'{SIDECARS}, topic=~"$topic", group=~"$group"'
SENT = f'{SIDECARS}, messaging_destination_name=~"$topic"'
PROCESSED = f'{SENT}, messaging_consumer_group_name=~"$group"'
ONE = "{{pod}} {{instance}}"

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


def rate(metric, labels=SIDECARS, more=""):
    return f"rate({metric}{{{labels}{more}}}[$__rate_interval])"


def quantile(share, metric, by="", labels=SIDECARS, more=""):
    return f"histogram_quantile({share}, sum by ({by}{', ' if by else ''}le) ({rate(f'{metric}_bucket', labels, more)}))"


def panel(kind, title, description, unit, queries, options, size, custom=None, **defaults):
    field = {"unit": unit, **defaults} | ({"custom": custom} if custom else {})
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": dict(zip("wh", size)),
        "fieldConfig": {"defaults": field, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(queries)
        ],
    }


def series(title, description, unit, *queries, stacked=False, **defaults):
    """Lines over time. Each query is an expression and its legend."""
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"} | ({"stacking": {"mode": "normal", "group": "A"}} if stacked else {})
    return panel("timeseries", title, description, unit, queries, options, (8, 8), custom, min=0, **defaults)


def stat(title, description, unit, expression, bad=None):
    """A figure of now; red from `bad` on."""
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
    steps = [{"color": "green", "value": None}] + ([{"color": "red", "value": bad}] if bad else [])
    return panel("stat", title, description, unit, [(expression, "")], options, (6, 4), thresholds={"mode": "absolute", "steps": steps})


def states(title, description, expression, legend):
    """What was the case when."""
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
        "showValue": "never",
        "mergeValues": True,
        "rowHeight": 0.8,
    }
    steps = {"mode": "absolute", "steps": [{"color": "transparent", "value": None}, {"color": "red", "value": 1}]}
    return panel("state-timeline", title, description, "short", [(expression, legend)], options, (24, 6), {"fillOpacity": 80}, thresholds=steps)


UNREACHABLE = f'min without (client) (sum without (broker, state) (outrigger_kafka_broker_connections{{{SIDECARS}, state="up"}})) == 0'

ROWS = {
    "Infrastructure": [
        stat("Sidecars", "Sidecars that Prometheus reads.", "short", f"count(outrigger_build_info{{{SIDECARS}}})"),
        stat("Without any broker", "Sidecars whose producer or consumers reach no broker.", "short", f"count({UNREACHABLE}) or vector(0)", bad=1),
        stat("Refusals by Kafka", "Credentials, certificates or rights, within 5 minutes.", "short", f"sum(increase(outrigger_kafka_refusals_total{{{SIDECARS}}}[5m])) or vector(0)", bad=1),
        stat("Versions", "Different builds that run.", "short", f"count(count by (version) (outrigger_build_info{{{SIDECARS}}}))"),
        states(
            "Alerts",
            "Outrigger's alerts that fire, over all sidecars: alerts.yaml says what to do.",
            'max by (severity, alertname) (ALERTS{alertname=~"Outrigger.+", alertstate="firing"})',
            "{{severity}}: {{alertname}}",
        ),
        series(
            "Connections to brokers",
            "By state. Connections that were never needed are `unused`, and idle ones that the broker closed are `down`: both are normal where others are `up`.",
            "short",
            (f"sum by (state) (outrigger_kafka_broker_connections{{{SIDECARS}}})", "{{state}}"),
            stacked=True,
        ),
        series(
            "Connections made and lost",
            "Attempts to connect, and ends of connections: many of both are a broker, or a load balancer before it, that does not hold them.",
            "cps",
            (f"sum by (client) ({rate('outrigger_kafka_broker_connects_total')})", "{{client}}: attempts"),
            (f"sum by (client) ({rate('outrigger_kafka_broker_disconnects_total')})", "{{client}}: ended"),
        ),
        series(
            "Requests repeated and unanswered",
            "Requests to brokers that were sent again, and that had no answer in time.",
            "reqps",
            (f"sum by (client, broker) ({rate('outrigger_kafka_broker_retries_total')})", "{{client}}, broker {{broker}}: sent again"),
            (f"sum by (client, broker) ({rate('outrigger_kafka_broker_timeouts_total')})", "{{client}}, broker {{broker}}: unanswered"),
        ),
        series(
            "Round trip to brokers, p99",
            "From a request of any kind to its answer. A consumer's fetch at the end of its partitions lasts `fetch.wait.max.ms`: that is normal.",
            "s",
            (quantile(0.99, "outrigger_kafka_round_trip_seconds", "client, broker"), "{{client}}, broker {{broker}}"),
        ),
        series(
            "Throttling",
            "Share of its time that a client is told to wait, because a quota is used up; over 1 where several brokers say so.",
            "percentunit",
            (f"sum by (client, broker) ({rate('outrigger_kafka_throttle_seconds_total')})", "{{client}}, broker {{broker}}"),
        ),
        series(
            "Refusals by Kafka",
            "A broker refuses a whole client.",
            "cps",
            (f"sum by (client, reason) ({rate('outrigger_kafka_refusals_total')})", "{{client}}: {{reason}}"),
        ),
    ],
    "Sidecar": [
        series(
            "Publish buffer in use",
            "Records admitted and not yet answered, as a share of what may be. At 100 % callers wait, then are refused.",
            "percentunit",
            (f"outrigger_publish_in_flight_bytes{{{SIDECARS}}} / outrigger_publish_in_flight_limit_bytes", ONE + ": bytes"),
            (f"outrigger_publish_in_flight_records{{{SIDECARS}}} / outrigger_publish_in_flight_limit_records", ONE + ": records"),
            max=1,
        ),
        series(
            "Waiting for room",
            "Batches and calls that wait until the buffer has room.",
            "short",
            (f"outrigger_publish_waiting_batches{{{SIDECARS}}}", ONE),
        ),
        series(
            "Wait for room, p99",
            "How long they waited; those that did not wait are in it.",
            "s",
            (quantile(0.99, "outrigger_publish_admission_seconds"), "p99"),
        ),
        series(
            "Oldest record in flight",
            "Age of the oldest batch that Kafka has not answered: when it grows, a partition has no leader or no broker is there.",
            "s",
            (f"outrigger_publish_oldest_in_flight_seconds{{{SIDECARS}}}", ONE),
        ),
        series(
            "Delivery latency",
            "From handing a batch to the producer to Kafka's last answer, linger included.",
            "s",
            *((quantile(share, "outrigger_publish_batch_seconds"), f"p{round(share * 100)}") for share in [0.5, 0.95, 0.99]),
        ),
        series(
            "Inside the producer",
            "Records in librdkafka's queues: waiting, sent, or answered and not yet reported.",
            "short",
            (f"outrigger_kafka_producer_queue_records{{{SIDECARS}}}", ONE),
        ),
        series(
            "Produce requests",
            "Requests that carry records, retries included. Few with many records each are cheap.",
            "reqps",
            (f"sum({rate('kafka_producer_send_requests_total')})", "requests"),
        ),
        series(
            "Calls by code",
            "gRPC calls that ended; a stream counts when it ends.",
            "reqps",
            (f"sum by (rpc_response_status_code) ({rate('rpc_server_call_duration_seconds_count')})", "{{rpc_response_status_code}}"),
            stacked=True,
        ),
        series(
            "Unary publish, p99",
            "From the head of a call to its answer: Kafka's acknowledgement is in it.",
            "s",
            (quantile(0.99, "rpc_server_call_duration_seconds", more=', rpc_method="outrigger.v1.PublisherService/Publish"'), "p99"),
        ),
        series(
            "Refused calls and cut streams",
            "Calls refused for want of room or because the sidecar stops, and streams that ended with a failure, by the reason of the README's error table.",
            "cps",
            (f"sum by (reason) ({rate('outrigger_grpc_refused_total')})", "refused: {{reason}}"),
            (f"sum by (reason) ({rate('outrigger_grpc_streams_failed_total')})", "cut: {{reason}}"),
        ),
        series(
            "Callers",
            "What is open.",
            "short",
            (f"sum(outrigger_grpc_connections{{{SIDECARS}}})", "connections"),
            (f"sum(outrigger_publish_streams{{{SIDECARS}}})", "publish streams"),
            (f"sum(outrigger_subscribe_streams{{{SIDECARS}}})", "subscribe streams"),
            (f"sum(outrigger_subscriptions{{{SIDECARS}}})", "consumers"),
        ),
        series(
            "Commits",
            "Offset commits by result, in commits per second.",
            "cps",
            (f"sum by (result) ({rate('outrigger_subscribe_commits_total')})", "{{result}}"),
        ),
        series(
            "Rebalances",
            "Partitions that came and went, by event: `lost` ones were taken without notice, and what was unsettled is delivered again.",
            "cps",
            (f"sum by (kind) ({rate('outrigger_subscribe_rebalances_total')})", "{{kind}}"),
        ),
        series(
            "Members that are not steady",
            "Consumers without a coordinator, or in a rebalance.",
            "short",
            (f'sum by (group, state) (outrigger_kafka_group_state{{{SIDECARS}, group=~"$group", state!="steady"}})', "{{group}}: {{state}}"),
        ),
        series(
            "Fetched ahead",
            "Records in memory that wait for room in the subscribers' windows.",
            "short",
            (f"sum by (group, topic) (outrigger_subscribe_prefetched_records{{{READ}}})", "{{group}}: {{topic}}"),
        ),
        series(
            "Room in the windows",
            "How many more records the subscribers may be sent: at 0 the application is the bottleneck.",
            "short",
            (f'sum by (group) (outrigger_subscribe_credit_records{{{SIDECARS}, group=~"$group"}})', "{{group}}"),
        ),
        series(
            "Draining and left behind",
            "Sidecars that drain, and consumers that did not close in time.",
            "short",
            (f"sum(outrigger_draining{{{SIDECARS}}})", "draining"),
            (f"sum(outrigger_subscribe_leaked_consumers_total{{{SIDECARS}}})", "consumers left behind"),
        ),
    ],
    "Business": [
        stat("Published", "Records that Kafka has acknowledged, per second.", "cps", f"sum({rate('outrigger_publish_records_total')})"),
        stat("Failed", "Records that were refused or failed, per second; their callers know.", "cps", f"sum({rate('outrigger_publish_failures_total')}) or vector(0)", bad=0.01),
        stat("Delivered", "Records delivered to subscribers, redeliveries included, per second.", "cps", f"sum({rate('outrigger_subscribe_delivered_records_total')})"),
        stat("Lag", "Records that the chosen groups have not acknowledged, in all chosen topics.", "short", f"sum(outrigger_subscribe_lag_records{{{READ}}})"),
        series(
            "Published by topic",
            "Records that Kafka has acknowledged.",
            "cps",
            (f"""sum by (messaging_destination_name) ({rate("messaging_client_sent_messages_total", SENT, ', error_type=""')})""", "{{messaging_destination_name}}"),
        ),
        series(
            "Publish failures by reason",
            "The reasons are those of the README's error table, which says what to do.",
            "cps",
            (f"sum by (reason) ({rate('outrigger_publish_failures_total')})", "{{reason}}"),
            stacked=True,
        ),
        series(
            "Delivered by group",
            "Records delivered to subscribers, redeliveries included.",
            "cps",
            (
                f"sum by (messaging_consumer_group_name, messaging_destination_name) ({rate('messaging_client_consumed_messages_total', PROCESSED)})",
                "{{messaging_consumer_group_name}}: {{messaging_destination_name}}",
            ),
        ),
        series(
            "Lag",
            "Records from the committed offset to the end, of the partitions that sidecars hold: what is delivered and not yet acknowledged counts. A group without any member "
            "is not seen here.",
            "short",
            (f"sum by (group, topic) (outrigger_subscribe_lag_records{{{READ}}})", "{{group}}: {{topic}}"),
        ),
        series(
            "End-to-end delay",
            "From a record's timestamp to its first delivery.",
            "s",
            (quantile(0.5, "outrigger_subscribe_delay_seconds", "group, topic", READ), "{{group}}: {{topic}}, p50"),
            (quantile(0.95, "outrigger_subscribe_delay_seconds", "group, topic", READ), "{{group}}: {{topic}}, p95"),
        ),
        series(
            "Processing, p95",
            "From the delivery of a record to its ack: the application's own time, the wait in its window included.",
            "s",
            (
                quantile(0.95, "messaging_process_duration_seconds", "messaging_consumer_group_name, messaging_destination_name", PROCESSED, ', error_type=""'),
                "{{messaging_consumer_group_name}}: {{messaging_destination_name}}",
            ),
        ),
        series(
            "Rejected",
            "Share of the settled records that the application nacked: poison records, or something that it depends on fails.",
            "percentunit",
            (
                "sum by (messaging_consumer_group_name, messaging_destination_name) ("
                + rate("messaging_process_duration_seconds_count", PROCESSED, ', error_type="nack"')
                + ") / sum by (messaging_consumer_group_name, messaging_destination_name) ("
                + rate("messaging_process_duration_seconds_count", PROCESSED)
                + ")",
                "{{messaging_consumer_group_name}}: {{messaging_destination_name}}",
            ),
            max=1,
        ),
        series(
            "Redelivered and settled",
            "Records delivered again after a nack, a release or the end of a stream; records settled by action; settles that came too late.",
            "cps",
            (f"sum({rate('outrigger_subscribe_redelivered_records_total')})", "delivered again"),
            (f"sum by (action) ({rate('outrigger_subscribe_settled_records_total')})", "{{action}}"),
            (f"sum({rate('outrigger_subscribe_stale_settles_total')})", "too late"),
        ),
        series(
            "Oldest unsettled record",
            "Age of the oldest delivery that the application has not settled: when it grows without end, it hangs.",
            "s",
            (f'max by (group) (outrigger_subscribe_oldest_unsettled_seconds{{{SIDECARS}, group=~"$group"}})', "{{group}}"),
        ),
        series(
            "Unsettled records",
            "Records delivered and not yet settled: what is delivered again when the pod dies.",
            "short",
            (f"outrigger_subscribe_unsettled_records{{{SIDECARS}}}", ONE),
        ),
        series(
            "Bytes",
            "Keys, values and headers.",
            "Bps",
            (f"sum({rate('outrigger_publish_bytes_total')})", "published"),
            (f"sum({rate('outrigger_subscribe_delivered_bytes_total')})", "delivered"),
        ),
        series(
            "Partitions held",
            "Partitions of a group that each sidecar holds: a member without any is one too many.",
            "short",
            (f'sum by (pod, instance, group) (outrigger_subscribe_assigned_partitions{{{SIDECARS}, group=~"$group"}})', "{{group}}: " + ONE),
        ),
    ],
}


def variable(name, label, source):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": source, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


TOPICS = '{__name__=~"messaging_client_sent_messages_total|messaging_client_consumed_messages_total", '
VARIABLES = [
    {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"},
    variable("namespace", "Namespace", "label_values(outrigger_build_info, namespace)"),
    variable("job", "Job", 'label_values(outrigger_build_info{namespace=~"$namespace"}, job)'),
    variable("instance", "Instance", 'label_values(outrigger_build_info{namespace=~"$namespace", job=~"$job"}, instance)'),
    variable("topic", "Topic", f"label_values({TOPICS}{SIDECARS}}}, messaging_destination_name)"),
    variable("group", "Group", f"label_values(outrigger_subscribe_assigned_partitions{{{SIDECARS}}}, group)"),
]


def laid_out():
    """The panels with their places: from left to right, then below."""
    x = y = height = 0
    panels = []
    for title, contents in ROWS.items():
        y += height
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}, "panels": []})
        x, y, height = 0, y + 1, 0
        for content in contents:
            w, h = content["gridPos"]["w"], content["gridPos"]["h"]
            if x + w > COLUMNS or h != height:
                x, y, height = 0, y + height, h
            panels.append(content | {"gridPos": {"x": x, "y": y, "w": w, "h": h}})
            x += w
    return [{"id": number} | content for number, content in enumerate(panels, start=1)]


def text():
    """The dashboard as JSON."""
    dashboard = {
        "uid": "outrigger",
        "title": "Outrigger",
        "description": "Outrigger sidecars: what they stand on, themselves, and what they are for. Made by deploy/grafana/dashboard.py.",
        "tags": ["outrigger", "kafka"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": VARIABLES},
        "panels": laid_out(),
    }
    return json.dumps(dashboard, indent=2) + "\n"
