/** A dialog that takes a picture with the device's camera. */
import { byId } from "./dom.js";

export function setUpCamera(onPicture: (picture: File) => void): void {
  const dialog = byId<HTMLDialogElement>("camera-dialog");
  const video = byId<HTMLVideoElement>("video");
  const error = byId("camera-error");
  const shoot = byId<HTMLButtonElement>("shoot");
  let stream: MediaStream | undefined;

  byId("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  byId("camera").addEventListener("click", async () => {
    error.hidden = true;
    shoot.disabled = true;
    dialog.showModal();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 4096 } } });
      if (!dialog.open) return stop();
      video.srcObject = stream;
      await video.play();
      shoot.disabled = false;
    } catch (reason) {
      error.textContent = `The camera cannot be used: ${(reason as Error).message}`;
      error.hidden = false;
    }
  });
  shoot.addEventListener("click", async () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d")!.drawImage(video, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
    dialog.close();
    onPicture(new File([blob], "camera.jpg", { type: blob.type }));
  });
  byId("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);

  function stop(): void {
    stream?.getTracks().forEach((track) => track.stop());
    stream = undefined;
    video.srcObject = null;
  }
}
