{{- /*
The configuration file and the secrets: one projected volume, mounted in the sidecar alone. Files, not variables, so that a change of a Secret or of the
ConfigMap reaches a sidecar that runs.
*/ -}}

{{- define "outrigger-sidecar.config" -}}
{{- toYaml (index .Values "outrigger-sidecar").config -}}
{{- end }}

{{- /* The ConfigMap of `config`; nothing when it is empty, or yours, or in the environment. A template of your chart includes it. */ -}}
{{- define "outrigger-sidecar.configMap" -}}
{{- $s := index .Values "outrigger-sidecar" -}}
{{- if and $s.config (eq $s.configAs "file") -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "outrigger-sidecar.configMapName" . | quote }}
  namespace: {{ .Release.Namespace }}
data:
  {{ $s.existingConfigMap.key | quote }}: |
    {{- include "outrigger-sidecar.config" . | nindent 4 }}
{{- end -}}
{{- end }}

{{- /* An annotation for the pod template: another configuration, another pod. */ -}}
{{- define "outrigger-sidecar.podAnnotations" -}}
{{- if include "outrigger-sidecar.configMap" . -}}
checksum/outrigger-config: {{ include "outrigger-sidecar.config" . | sha256sum }}
{{- end -}}
{{- end }}

{{- /* Each secret file: the setting that names it, its Secret and key, and its path below the configuration directory. */ -}}
{{- define "outrigger-sidecar.secretFiles" -}}
{{- $s := index .Values "outrigger-sidecar" -}}
files:
{{- with $s.kafka.tls }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .caKey "kafka-tls/ca.crt" "KAFKA__TLS__CA_FILE") }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .certificateKey "kafka-tls/tls.crt" "KAFKA__TLS__CERTIFICATE_FILE") }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .keyKey "kafka-tls/tls.key" "KAFKA__TLS__KEY_FILE") }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .keyPasswordKey "kafka-tls/key-password" "KAFKA__TLS__KEY_PASSWORD_FILE") }}
{{- end }}
{{- with $s.kafka.sasl }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .usernameKey "sasl/username" "KAFKA__SASL__USERNAME_FILE") }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .passwordKey "sasl/password" "KAFKA__SASL__PASSWORD_FILE") }}
{{- end }}
{{- with $s.kafka.oauth }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .clientSecretKey "oauth/client-secret" "KAFKA__SASL__OAUTH__CLIENT_SECRET_FILE") }}
{{- end }}
{{- with $s.listen.tls }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .certificateKey "listen-tls/tls.crt" "LISTEN__TLS__CERTIFICATE_FILE") }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .keyKey "listen-tls/tls.key" "LISTEN__TLS__KEY_FILE") }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .clientCaKey "listen-tls/client-ca.crt" "LISTEN__TLS__CLIENT_CA_FILE") }}
{{- end }}
{{- with $s.listen.tokens }}
{{- include "outrigger-sidecar.secretFile" (list .existingSecret .key "listen-tokens/tokens" "LISTEN__TOKENS_FILE") }}
{{- end }}
{{- end }}

{{- define "outrigger-sidecar.secretFile" -}}
{{- if and (index . 0) (index . 1) }}
  - secret: {{ index . 0 | quote }}
    key: {{ index . 1 | quote }}
    path: {{ index . 2 }}
    setting: {{ index . 3 }}
{{- end }}
{{- end }}

{{- /* The sources of the projected volume; nothing when the sidecar needs no file. */ -}}
{{- define "outrigger-sidecar.configSources" -}}
{{- $s := index .Values "outrigger-sidecar" -}}
{{- if or $s.existingConfigMap.name (include "outrigger-sidecar.configMap" .) }}
- configMap:
    name: {{ include "outrigger-sidecar.configMapName" . | quote }}
    items:
      - key: {{ $s.existingConfigMap.key | quote }}
        path: outrigger.yaml
    {{- if and $s.existingConfigMap.name $s.existingConfigMap.optional }}
    optional: true
    {{- end }}
{{- end }}
{{- range $file := (include "outrigger-sidecar.secretFiles" . | fromYaml).files }}
- secret:
    name: {{ $file.secret | quote }}
    items:
      - key: {{ $file.key | quote }}
        path: {{ $file.path }}
{{- end }}
{{- end }}

{{- /* Entries for the pod's volumes. */ -}}
{{- define "outrigger-sidecar.volumes" -}}
{{- $s := index .Values "outrigger-sidecar" -}}
- name: {{ include "outrigger-sidecar.socketVolume" . }}
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- with include "outrigger-sidecar.configSources" . }}
- name: {{ include "outrigger-sidecar.configVolume" $ }}
  projected:
    # Readable by the sidecar's user whatever the pod's fsGroup is; no other container mounts it.
    defaultMode: 292
    sources:
      {{- . | trim | nindent 6 }}
{{- end }}
{{- with $s.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
