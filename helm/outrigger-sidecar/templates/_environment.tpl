{{- /*
The sidecar's environment. What stands here wins over the configuration file: where things are mounted and where probes look is not a setting.
*/ -}}

{{- define "outrigger-sidecar.environment" -}}
{{- $s := index .Values "outrigger-sidecar" -}}
{{- $etc := include "outrigger-sidecar.configDirectory" . -}}
# Where `outrigger drain`, run in this container, finds the sidecar: the socket asks for neither TLS nor a token.
- name: OUTRIGGER_ADDRESS
  value: unix:{{ include "outrigger-sidecar.socket" . }}
{{- if and (not (has $s.listen.host (list "127.0.0.1" "[::1]" "localhost"))) (not (and $s.listen.tls.existingSecret (or $s.listen.tls.clientCaKey $s.listen.tokens.existingSecret))) }}
{{- fail "outrigger-sidecar: listen.host can be reached from outside of the pod, which needs TLS and authentication. Set listen.tls.existingSecret, and listen.tokens.existingSecret or listen.tls.clientCaKey." }}
{{- end }}
- name: OUTRIGGER_LISTEN__TCP
  value: {{ printf "%s:%v" $s.listen.host $s.listen.port | quote }}
- name: OUTRIGGER_LISTEN__UNIX
  value: {{ include "outrigger-sidecar.socket" . }}
# The directory is seen by this pod alone, whose containers run under any uid.
- name: OUTRIGGER_LISTEN__UNIX_MODE
  value: "0666"
- name: OUTRIGGER_ADMIN__LISTEN
  value: {{ printf "%s:%v" $s.admin.host $s.admin.port | quote }}
{{- if $s.kafka.tls.enabled }}
- name: OUTRIGGER_KAFKA__TLS__ENABLED
  value: "true"
{{- end }}
{{- with $s.kafka.sasl.mechanism }}
- name: OUTRIGGER_KAFKA__SASL__MECHANISM
  value: {{ . }}
{{- end }}
{{- with $s.kafka.oauth.tokenEndpoint }}
- name: OUTRIGGER_KAFKA__SASL__OAUTH__TOKEN_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with $s.kafka.oauth }}
{{- if and .existingSecret .clientIdKey }}
# No secret, and it does not change: a variable will do.
- name: OUTRIGGER_KAFKA__SASL__OAUTH__CLIENT_ID
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret | quote }}
      key: {{ .clientIdKey | quote }}
{{- end }}
{{- end }}
{{- range $file := (include "outrigger-sidecar.secretFiles" . | fromYaml).files }}
- name: OUTRIGGER_{{ $file.setting }}
  value: {{ $etc }}/{{ $file.path }}
{{- end }}
{{- if eq $s.configAs "environment" }}
{{- range $name, $value := include "outrigger-sidecar.settings" $s.config | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: OTEL_SERVICE_NAME
  value: {{ $s.otel.serviceName | quote }}
- name: OTEL_RESOURCE_ATTRIBUTES
  {{- $attributes := "k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE),k8s.container.name=outrigger" }}
  {{- range $name, $value := $s.otel.resourceAttributes }}
  {{- $attributes = printf "%s,%s=%v" $attributes $name $value }}
  {{- end }}
  value: {{ $attributes | quote }}
{{- with $s.otel.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with $s.extraEnvVars }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* A configuration tree as environment variables: {kafka: {bootstrap_servers: x}} becomes OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS. Called with the tree. */ -}}
{{- define "outrigger-sidecar.settings" -}}
{{- include "outrigger-sidecar.settingsBelow" (dict "prefix" "OUTRIGGER" "separator" "_" "tree" .) -}}
{{- end }}

{{- define "outrigger-sidecar.settingsBelow" -}}
{{- range $key, $value := .tree }}
{{- $name := printf "%s%s%s" $.prefix $.separator ($key | replace "." "_" | upper) }}
{{- if kindIs "map" $value }}
{{- include "outrigger-sidecar.settingsBelow" (dict "prefix" $name "separator" "__" "tree" $value) }}
{{- else if kindIs "slice" $value }}
{{- fail (printf "outrigger-sidecar: config has a list (%s), which no environment variable can carry; put it into a ConfigMap and name that in existingConfigMap.name" $name) }}
{{- else if not (kindIs "invalid" $value) }}
{{- /* YAML's numbers are floats here; a large whole one would print as 1e+06. */}}
{{- $whole := and (kindIs "float64" $value) (eq (printf "%v" $value) (printf "%v" (float64 (int64 $value)))) }}
{{ $name }}: {{ $whole | ternary (printf "%d" (int64 $value)) (toString $value) | quote }}
{{- end }}
{{- end }}
{{- end }}
