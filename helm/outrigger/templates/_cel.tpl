{{- /*
A Kubernetes object as the CEL that constructs it: what the injection policy inserts is written from the library's own container, not beside it.

  {{ include "outrigger.cel" (dict "type" "Object.spec.initContainers" "value" $container) }}

A map becomes a typed object (Object.spec.initContainers{name: …}), but for the few fields that are maps in Kubernetes too. A map with the single key "cel"
is an expression that is taken as it is, for what the policy decides while it runs.
*/ -}}

{{- define "outrigger.cel" -}}
{{- $type := .type -}}
{{- $value := .value -}}
{{- if kindIs "map" $value -}}
{{- if and (hasKey $value "cel") (eq (len $value) 1) -}}
{{- $value.cel -}}
{{- else -}}
{{- $isMap := has ($type | splitList "." | last) (list "limits" "requests" "matchLabels" "labels" "annotations" "volumeAttributes") -}}
{{- $fields := list -}}
{{- range $key := keys $value | sortAlpha -}}
{{- $field := include "outrigger.cel" (dict "type" (printf "%s.%s" $type $key) "value" (get $value $key)) -}}
{{- $fields = append $fields (printf "%s: %s" ($isMap | ternary (toRawJson $key) $key) $field) -}}
{{- end -}}
{{- $isMap | ternary "" $type -}}{ {{- include "outrigger.cel.items" $fields -}} }
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- $items := list -}}
{{- range $item := $value -}}
{{- $items = append $items (include "outrigger.cel" (dict "type" $type "value" $item)) -}}
{{- end -}}
[ {{- include "outrigger.cel.items" $items -}} ]
{{- else if kindIs "float64" $value -}}
{{- printf "%d" (int64 $value) -}}
{{- else -}}
{{- toRawJson $value -}}
{{- end -}}
{{- end }}

{{- /* Short lists on one line, others a line each. */ -}}
{{- define "outrigger.cel.items" -}}
{{- $line := join ", " . -}}
{{- if and (lt (len $line) 100) (not (contains "\n" $line)) -}}
{{- $line -}}
{{- else -}}
{{- join ",\n" . | nindent 2 }}
{{ end -}}
{{- end }}
