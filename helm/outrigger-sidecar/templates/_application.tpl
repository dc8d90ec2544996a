{{- /*
What the containers of the application get: where the sidecar is, and the directory of its socket. Other init containers that use Kafka get the same.
*/ -}}

{{- define "outrigger-sidecar.appEnv" -}}
{{- $s := index .Values "outrigger-sidecar" -}}
- name: OUTRIGGER_ADDRESS
  value: {{ printf "127.0.0.1:%v" $s.listen.port | quote }}
- name: OUTRIGGER_SOCKET
  value: unix://{{ include "outrigger-sidecar.socket" . }}
{{- end }}

{{- define "outrigger-sidecar.appVolumeMounts" -}}
- name: {{ include "outrigger-sidecar.socketVolume" . }}
  mountPath: {{ include "outrigger-sidecar.socketDirectory" . }}
{{- end }}
